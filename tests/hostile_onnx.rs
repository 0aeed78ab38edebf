//! ONNX files from strangers: damaged or made to do harm. Each must give a typed error that names the trouble,
//! without a panic and without a large allocation. Models are written here byte by byte, in protobuf's wire format.

use aquatint::Error;
use aquatint::formats::onnx::OnnxModel;

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 127 {
        bytes.push(n as u8 | 128);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn number(field: u64, n: i64) -> Vec<u8> {
    [varint(field << 3), varint(n as u64)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn text(field: u64, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

fn node(op: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|i| text(1, i)).collect();
    bytes(1, &[inputs, text(2, output), text(3, &format!("node {output}")), text(4, op)].concat())
}

/// A value of floats; field 11 is an input of a graph, 12 an output.
fn port(field: u64, name: &str, dims: &[i64]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| bytes(1, &number(1, d))).collect();
    let tensor = [number(1, 1), bytes(2, &dims)].concat();
    bytes(field, &[text(1, name), bytes(2, &bytes(1, &tensor))].concat())
}

fn weight(name: &str, dims: &[i64], more: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| number(1, d)).collect();
    bytes(5, &[dims, number(2, 1), text(8, name), more.to_vec()].concat())
}

fn external(location: &str, length: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| bytes(13, &[text(1, key), text(2, value)].concat());
    [entry("location", location), entry("length", length), number(14, 1)].concat()
}

fn model(parts: &[Vec<u8>]) -> Vec<u8> {
    [number(1, 8), bytes(7, &parts.concat()), bytes(8, &number(2, 17))].concat()
}

fn sound() -> Vec<u8> {
    model(&[node("Relu", &["x"], "y"), port(11, "x", &[1, 3, 4, 4]), port(12, "y", &[1, 3, 4, 4])])
}

fn built(bytes: Vec<u8>) -> Result<aquatint::Graph, Error> {
    OnnxModel::from_bytes("model.onnx", bytes)?.graph(&[])
}

#[track_caller]
fn refused(bytes: Vec<u8>, says: &str) {
    match built(bytes) {
        Err(error @ (Error::Format { .. } | Error::Unsupported { .. } | Error::Invalid { .. })) => {
            let message = error.to_string();
            assert!(message.contains(says), "{message}");
        }
        other => panic!("expected an error that says \"{says}\", got {other:?}"),
    }
}

#[test]
fn a_sound_model_builds() {
    built(sound()).unwrap();
}

/// Every beginning of a model, and every model with a byte changed, is refused or builds; it never panics.
#[test]
fn truncated_and_damaged() {
    let whole = model(&[
        node("Conv", &["x", "w"], "a"),
        node("Relu", &["a"], "y"),
        weight("w", &[2, 3, 1, 1], &bytes(9, &[0; 24])),
        port(11, "x", &[1, 3, 4, 4]),
        port(12, "y", &[1, 2, 4, 4]),
    ]);
    built(whole.clone()).unwrap();
    for end in 0..whole.len() {
        let _ = built(whole[..end].to_vec());
    }
    for at in 0..whole.len() {
        for change in [1, 2, 8, 64, 128, 255] {
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            let _ = built(damaged);
        }
    }
    refused(b"not a model at all".to_vec(), "not an ONNX model");
    refused(vec![], "no graph");
}

#[test]
fn graphs_that_are_none() {
    let ports = [port(11, "x", &[1, 4]), port(12, "y", &[1, 4])].concat();
    let circle =
        [node("Relu", &["b"], "a"), node("Relu", &["a"], "b"), node("Add", &["x", "b"], "y")].concat();
    refused(model(&[circle, ports.clone()]), "circle");
    refused(model(&[node("Relu", &["nothing"], "y"), ports.clone()]), "comes from nowhere");
    refused(model(&[node("Relu", &["x"], "z"), ports.clone()]), "computed by no node");
    let twice = [node("Relu", &["x"], "y"), node("Abs", &["x"], "y")].concat();
    refused(model(&[twice, ports]), "two nodes");
}

/// Not only the first.
#[test]
fn everything_unsupported_is_named_at_once() {
    let nodes =
        [node("Einsum", &["x"], "a"), node("Relu", &["a"], "b"), node("Unheard", &["b"], "y")].concat();
    let error = built(model(&[nodes, port(11, "x", &[2]), port(12, "y", &[2])])).unwrap_err();
    let Error::Unsupported { nodes, .. } = &error else { panic!("{error}") };
    assert_eq!(nodes.len(), 2, "{error}");
    assert!(nodes[0].contains("Einsum") && nodes[1].contains("Unheard"), "{error}");
}

#[test]
fn absurd_shapes() {
    let y = port(12, "y", &[1]);
    let relu = node("Relu", &["x"], "y");
    refused(model(&[relu.clone(), port(11, "x", &[1, -3]), y.clone()]), "-3");
    refused(model(&[relu.clone(), port(11, "x", &[i64::MAX]), y.clone()]), "out of range");
    refused(model(&[relu, port(11, "x", &[1 << 30, 1 << 30, 1 << 30]), y.clone()]), "");
    for dims in [&[i64::MAX, i64::MAX][..], &[1 << 40], &[-1, 4]] {
        let add = node("Add", &["x", "w"], "y");
        refused(model(&[add, weight("w", dims, &[]), port(11, "x", &[4]), y.clone()]), "w");
    }
    let short = weight("w", &[4], &bytes(9, &[0; 12]));
    refused(model(&[node("Add", &["x", "w"], "y"), short, port(11, "x", &[4]), y]), "12");
}

#[test]
fn values_in_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("models");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("secret"), [0; 16]).unwrap();
    std::fs::write(inner.join("data"), [0; 16]).unwrap();
    let of = |location: &str, length: &str| {
        model(&[
            node("Add", &["x", "w"], "y"),
            weight("w", &[4], &external(location, length)),
            port(11, "x", &[4]),
            port(12, "y", &[4]),
        ])
    };
    let open = |location: &str, length: &str| {
        let path = inner.join("model.onnx");
        std::fs::write(&path, of(location, length)).unwrap();
        OnnxModel::open(path)
    };
    open("data", "16").unwrap().graph(&[]).unwrap();
    let outside = folder.path().join("secret");
    for location in
        ["../secret", "./../secret", "a/../../secret", "/etc/passwd", outside.to_str().unwrap(), ""]
    {
        let error = open(location, "16").unwrap_err().to_string();
        assert!(error.contains("outside the model's folder"), "{location}: {error}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&outside, inner.join("link")).unwrap();
        assert!(open("link", "16").unwrap_err().to_string().contains("outside"));
        // A folder of links to what lies side by side, as in the cache of the hub.
        let [content, links] = ["content", "links"].map(|name| folder.path().join(name));
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, links.join(name)).unwrap();
        std::fs::create_dir(&content).unwrap();
        std::fs::create_dir(&links).unwrap();
        std::fs::write(content.join("1"), of("data", "16")).unwrap();
        std::fs::write(content.join("2"), [0; 16]).unwrap();
        link("../content/1", "model.onnx");
        link("../content/2", "data");
        OnnxModel::open(links.join("model.onnx")).unwrap().graph(&[]).unwrap();
        std::fs::remove_file(links.join("data")).unwrap();
        link("../secret", "data");
        let error = OnnxModel::open(links.join("model.onnx")).unwrap_err().to_string();
        assert!(error.contains("outside"), "{error}");
    }
    assert!(matches!(open("missing", "16"), Err(Error::Io { .. })));
    assert!(open("data", "17").is_err());
    assert!(open("data", "18446744073709551615").is_err());
    assert!(open("data", "-1").is_err());
}

/// Sizes, counts and axes that make no sense, one at a time, in operators that read windows, places and grids of
/// integers: they are refused or mean something, and nothing panics.
#[test]
fn attributes_without_sense() {
    let attribute = |name: &str, value: &[u8]| bytes(5, &[text(1, name), value.to_vec()].concat());
    let with = |op: &str, inputs: &[&str], more: &[u8]| {
        let inputs: Vec<u8> = inputs.iter().flat_map(|i| text(1, i)).collect();
        bytes(1, &[inputs, text(2, "y"), text(2, "z"), text(4, op), more.to_vec()].concat())
    };
    // Integers of eight bytes each, as shapes are given; of one byte each, as weights are.
    let raw = |code: i64, name: &str, dims: &[i64], content: &[u8]| {
        let dims: Vec<u8> = dims.iter().flat_map(|&d| number(1, d)).collect();
        bytes(5, &[dims, number(2, code), text(8, name), bytes(9, content)].concat())
    };
    let long = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let windows = ["kernel_shape", "strides", "pads", "dilations", "group", "ceil_mode", "auto_pad", "p"];
    let cases: [(&str, &[&str], &[&str]); 17] = [
        ("MaxPool", &["x"], &windows),
        ("LpPool", &["x"], &windows),
        ("MaxUnpool", &["x", "i"], &windows),
        ("Col2Im", &["flat", "s", "s"], &windows),
        ("DeformConv", &["x", "wf", "x"], &[&windows[..], &["offset_group"]].concat()),
        ("QLinearConv", &["q", "one", "q1", "wq", "one", "q1", "one", "q1"], &windows),
        ("ConvInteger", &["q", "wq", "q1", "q1"], &windows),
        ("QuantizeLinear", &["x", "one", "q1"], &["axis", "block_size", "output_dtype", "precision"]),
        ("DequantizeLinear", &["q", "one", "q1"], &["axis", "block_size", "output_dtype"]),
        ("QLinearMatMul", &["q", "one", "q1", "q", "one", "q1", "one", "q1"], &["axis"]),
        ("MatMulInteger", &["q", "q", "q1", "q1"], &["axis"]),
        ("RoiAlign", &["x", "rois", "s"], &["output_height", "output_width", "sampling_ratio"]),
        ("GridSample", &["x", "grid"], &["align_corners", "mode", "padding_mode"]),
        ("AffineGrid", &["theta", "huge"], &["align_corners"]),
        ("CenterCropPad", &["x", "s"], &["axes"]),
        ("RotaryEmbedding", &["x", "flat", "flat"], &["num_heads", "rotary_embedding_dim", "interleaved"]),
        ("Compress", &["x", "truth"], &["axis"]),
    ];
    for (op, inputs, names) in cases {
        for name in names {
            for value in [i64::MIN, -1, 0, 1, 3, 1 << 20, 1 << 40, i64::MAX] {
                for count in [0, 1, 2, 4] {
                    let list: Vec<u8> = (0..count).flat_map(|_| number(8, value)).collect();
                    let value = if count == 0 { number(3, value) } else { list };
                    let parts = [
                        with(op, inputs, &attribute(name, &value)),
                        raw(7, "s", &[2], &long(&[2, 2])),
                        raw(7, "huge", &[4], &long(&[1, 1, 1 << 30, 1 << 30])),
                        raw(7, "i", &[1, 2, 4, 4], &long(&[0; 32])),
                        raw(2, "wq", &[2, 2, 1, 1], &[7; 4]),
                        raw(1, "wf", &[2, 2, 1, 1], &[0; 16]),
                        raw(2, "q", &[1, 2, 4, 4], &[5; 32]),
                        raw(2, "q1", &[], &[3]),
                        raw(1, "one", &[], &1.0f32.to_le_bytes()),
                        raw(9, "truth", &[3], &[1, 0, 1]),
                        port(11, "x", &[1, 2, 4, 4]),
                        port(11, "flat", &[1, 8, 9]),
                        port(11, "rois", &[2, 4]),
                        port(11, "grid", &[1, 3, 3, 2]),
                        port(11, "theta", &[1, 2, 3]),
                        port(12, "y", &[1]),
                    ];
                    let _ = built(model(&parts));
                }
            }
        }
    }
}
