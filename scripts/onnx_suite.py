"""Writes ONNX's conformance suite to a folder that tests/onnx_suite.rs reads.

    python onnx_suite.py FOLDER

The node cases are made by the `onnx` package itself, the converted PyTorch cases lie in it. For each
case there is NAME.onnx, and NAME.safetensors with the tensors input_0, input_1, ... and output_0, ...;
index.json lists the cases. Cases with types that safetensors has no name for (text, sequences, 4 bits)
are only counted.
"""

import json
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper
from onnx.backend.test.loader import load_node_model_tests

# Operators that networks for pictures need first, and those that come second.
TIER_1 = """Abs Add ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
ConvTranspose Cos DepthToSpace Div Dropout Elu Erf Exp Expand Flatten Floor Gather Gelu Gemm GlobalAveragePool
GlobalMaxPool GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN LayerNormalization
LeakyRelu Log MatMul Max MaxPool Min Mish Mul Neg PRelu Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin
ReduceSum Relu Reshape Resize Shape Sigmoid Sin Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum
Swish Tanh Tile Transpose Unsqueeze Upsample Where""".split()
TIER_2 = """Acos Acosh AffineGrid And ArgMin Asin Asinh Atan Atanh Attention CastLike Celu CenterCropPad Col2Im
Compress ConvInteger Cosh CumProd CumSum DeformConv DequantizeLinear DynamicQuantizeLinear Einsum Equal EyeLike GRU
GatherElements GatherND Greater GreaterOrEqual GridSample Hardmax If IsInf IsNaN LSTM Less LessOrEqual LogSoftmax
LpNormalization LpPool MatMulInteger MaxUnpool Mean MeanVarianceNormalization Mod NonMaxSuppression NonZero Not OneHot
Or QLinearConv QLinearMatMul QuantizeLinear RMSNormalization ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceProd
ReduceSumSquare ReverseSequence RoiAlign RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shrink Sign Sinh
Size Softsign SwiGLU Tan ThresholdedRelu TopK Trilu Xor""".split()

# Inputs on which the shape of a result depends: sizes, axes and counts. The suite gives all inputs at
# run time; exporters write these as constants, and so does the test. Never data, never weights.
SHAPE_LIKE = {
    "AffineGrid": [1],
    "BlackmanWindow": [0],
    "CenterCropPad": [1],
    "Col2Im": [1, 2],
    "ConstantOfShape": [0],
    "CumProd": [1],
    "CumSum": [1],
    "DFT": [1, 2],
    "Expand": [1],
    "HammingWindow": [0],
    "HannWindow": [0],
    "MaxUnpool": [2],
    "NonMaxSuppression": [2],
    "OneHot": [1],
    "Pad": [1, 3],
    "Range": [0, 1, 2],
    "Reshape": [1],
    "Resize": [1, 2, 3],
    "STFT": [1, 3],
    "Slice": [1, 2, 3, 4],
    "Split": [1],
    "Squeeze": [1],
    "Tile": [1],
    "TopK": [1],
    "Trilu": [1],
    "Unsqueeze": [1],
    "Upsample": [1],
} | {f"Reduce{f}": [1] for f in "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()}

TYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
}
CORE = {"float32", "int64", "int32", "bool"}


def save(path, tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def node_cases():
    plain = {}
    for case in load_node_model_tests():
        node = case.model.graph.node[0]
        if "_expanded" not in case.name:
            op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            fixed = [node.input[i] for i in SHAPE_LIKE.get(op, []) if i < len(node.input) and node.input[i]]
            plain[case.name] = (op, fixed)
            yield "node", case.name, op, False, fixed, case.model, case.data_sets[0]
        else:
            op, fixed = plain[case.name.split("_expanded")[0]]
            yield "node", case.name, op, True, fixed, case.model, case.data_sets[0]


def tensor(path):
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


def converted_cases():
    data = pathlib.Path(onnx.backend.test.__file__).parent / "data"
    for kind in ("pytorch-converted", "pytorch-operator", "simple"):
        for folder in sorted((data / kind).iterdir()):
            model = onnx.load(folder / "model.onnx")
            sets = sorted(folder.glob("test_data_set_*"))
            if not sets:
                continue
            try:
                ports = [
                    [tensor(sets[0] / f"{way}_{i}.pb") for i in range(len(list(sets[0].glob(f"{way}_*.pb"))))]
                    for way in ("input", "output")
                ]
            except Exception:  # sequences are not tensors
                ports = None
            yield kind, folder.name, kind, False, [], model, ports


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for kind, name, op, expanded, fixed, model, ports in [*node_cases(), *converted_cases()]:
        arrays = [*ports[0], *ports[1]] if ports else [None]
        entry = {"name": f"{kind}-{name}" if kind != "node" else name, "kind": kind, "op": op}
        entry["expanded"] = expanded
        entry["tier"] = 1 if op in TIER_1 else 2 if op in TIER_2 else 3
        arrays = [a if isinstance(a, np.ndarray) else np.asarray(a) if np.isscalar(a) else a for a in arrays]
        known = all(isinstance(a, np.ndarray) and a.dtype.name in TYPES for a in arrays)
        entry["core"] = known and all(a.dtype.name in CORE for a in arrays)
        entry["readable"] = known
        if known:
            # A case without a value for an optional input leaves it out.
            names = [i.name for i in model.graph.input if i.name not in {w.name for w in model.graph.initializer}]
            entry["inputs"] = names
            entry["fixed"] = [n for n in fixed if n in names]
            entry["outputs"] = [o.name for o in model.graph.output]
            count = len(ports[0])
            tensors = {f"input_{i}": a for i, a in enumerate(arrays[:count])}
            tensors |= {f"output_{i}": a for i, a in enumerate(arrays[count:])}
            save(folder / f"{entry['name']}.safetensors", tensors)
            (folder / f"{entry['name']}.onnx").write_bytes(model.SerializeToString())
        index.append(entry)
    (folder / "index.json").write_text(json.dumps({"onnx": onnx.__version__, "cases": index}))
    print(f"{len(index)} cases in {folder}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
