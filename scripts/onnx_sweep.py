"""Random convolutions, pools, norms and resizings, operators with computed indices, and whole networks with random weights,
with what ONNX Runtime makes of them. The conformance suite hardly tests convolution, einsum or what exporters do with
indices, and the networks that it brings have one number for all weights.

    python onnx_sweep.py FOLDER

For each case there is sweep-NAME.onnx and .safetensors as onnx_suite.py writes them; sweep.json lists them.
Of the networks the results before the softmax are kept. Seeds are fixed: the cases are the same everywhere.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnx.backend.test
import onnx_sweep_sampled
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx_suite import save

OPSET = 20


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


class Sweep:
    def __init__(self, folder):
        self.folder, self.cases = folder, []
        self.rng = np.random.default_rng(20260)

    def one(self, options):
        return options[self.rng.integers(len(options))]

    def keep(self, name, kind, model, feeds):
        outputs = run(model, feeds)
        (self.folder / f"sweep-{name}.onnx").write_bytes(model.SerializeToString())
        tensors = {f"input_{i}": a for i, a in enumerate(feeds.values())}
        tensors |= {f"output_{i}": a for i, a in enumerate(outputs)}
        save(self.folder / f"sweep-{name}.safetensors", tensors)
        self.cases.append({"name": f"sweep-{name}", "kind": kind, "inputs": list(feeds)})

    def node(self, op, x, weights, attributes, opset=OPSET, wanted=("y",)):
        """One node; its weights are constants or inputs, as chance has it."""
        names = ["x"] + [w[0] if w[1] is not None else "" for w in weights]
        node = helper.make_node(op, names, list(wanted), **attributes)
        given = [(n, a) for n, a in weights if a is not None]
        floats = self.rng.integers(2) == 0
        fixed = [(n, a) for n, a in given if a.dtype != np.float32 or floats or n in ("scales", "roi")]
        free = [(n, a) for n, a in given if all(n != m for m, _ in fixed)]
        inputs = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in [("x", x), *free]
        ]
        outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in wanted]
        graph = helper.make_graph([node], "sweep", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in fixed])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        count = sum(c["kind"] == op for c in self.cases)
        try:
            self.keep(f"{op.lower()}-{count}", op, model, dict([("x", x), *free]))
        except Exception as error:  # a window larger than its map, and the like
            if type(error).__name__ not in ("Fail", "InvalidArgument", "RuntimeException"):
                raise

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(np.float32)

    def spatial(self, low=3, high=14):
        return [int(n) for n in self.rng.integers(low, high, self.one([1, 2, 2, 2]))]

    def window(self, rank, padding=True):
        kernel = [int(k) for k in self.rng.integers(1, 5, rank)]
        result = {"strides": [int(s) for s in self.rng.integers(1, 4, rank)]}
        choice = self.one(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
        if choice == "NOTSET" and padding:
            result["pads"] = [int(self.rng.integers(0, k)) for k in kernel + kernel]
        elif choice != "NOTSET":
            result["auto_pad"] = choice
        return kernel, result

    def conv(self):
        size = self.spatial()
        kernel, attributes = self.window(len(size))
        groups = self.one([1, 1, 2, 3, 4])
        each, out = int(self.rng.integers(1, 6)), int(self.rng.integers(1, 6)) * groups
        if self.rng.integers(4) == 0:
            groups, each, out = 8, 1, 8
        if "auto_pad" not in attributes or attributes["auto_pad"] == "VALID":
            attributes["dilations"] = [int(d) for d in self.rng.integers(1, 3, len(size))]
        x = self.normal(self.one([1, 2]), each * groups, *size)
        bias = self.normal(out) if self.rng.integers(2) else None
        self.node("Conv", x, [("w", self.normal(out, each, *kernel)), ("b", bias)], attributes | {"group": groups})

    def conv_transpose(self):
        size = self.spatial(2, 9)
        kernel, attributes = self.window(len(size))
        groups = self.one([1, 1, 2, 3])
        each, out = int(self.rng.integers(1, 6)), int(self.rng.integers(1, 6))
        if "auto_pad" not in attributes:
            attributes["dilations"] = [int(d) for d in self.rng.integers(1, 3, len(size))]
            attributes["output_padding"] = [int(self.rng.integers(0, s)) for s in attributes["strides"]]
        elif attributes["auto_pad"].startswith("SAME"):
            # Of strides beyond the kernel ONNX Runtime makes less than the standard's size · stride.
            attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel)]
        x = self.normal(self.one([1, 2]), each * groups, *size)
        bias = self.normal(out * groups) if self.rng.integers(2) else None
        weights = [("w", self.normal(each * groups, out, *kernel)), ("b", bias)]
        self.node("ConvTranspose", x, weights, attributes | {"group": groups})

    def pool(self, op):
        size = self.spatial()
        kernel, attributes = self.window(len(size))
        attributes |= {"kernel_shape": kernel}
        if "auto_pad" not in attributes:
            attributes["ceil_mode"] = int(self.rng.integers(2))
        if op == "AveragePool":
            attributes["count_include_pad"] = int(self.rng.integers(2))
        x = self.normal(self.one([1, 2]), int(self.rng.integers(1, 9)), *size)
        self.node(op, x, [], attributes, opset=self.one([11, 19]))

    def resize(self):
        n, c, h, w = self.one([1, 2]), self.one([1, 3, 4]), *[int(v) for v in self.rng.integers(2, 9, 2)]
        mode = self.one(["nearest", "linear", "cubic"])
        modes = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
        attributes = {"mode": mode, "coordinate_transformation_mode": self.one(modes)}
        if mode == "nearest":
            attributes["nearest_mode"] = self.one(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
        if mode == "cubic" and self.rng.integers(3) == 0:
            attributes["exclude_outside"] = 1
        if mode != "nearest" and self.rng.integers(4) == 0 and attributes["coordinate_transformation_mode"] == "half_pixel":
            attributes["antialias"] = 1
        sizes = np.array([n, c, *self.rng.integers(2, 17, 2)], dtype=np.int64)
        weights = [("roi", None), ("scales", None), ("sizes", sizes)]
        self.node("Resize", self.normal(n, c, h, w), weights, attributes, opset=19)

    def norm(self, op):
        c = self.one([1, 2, 3, 4, 6, 8, 12])
        shape = [self.one([1, 2]), c, *self.spatial(2, 9)]
        x = self.normal(*shape) * 3 + 1
        eps = {"epsilon": float(self.one([1e-5, 1e-3]))}
        vector = lambda: self.normal(c)  # noqa: E731
        if op == "BatchNormalization":
            variance = np.abs(vector()) + np.float32(0.5)
            weights = [("w", vector()), ("b", vector()), ("mean", vector()), ("var", variance)]
            self.node(op, x, weights, eps, opset=15)
        elif op == "InstanceNormalization":
            self.node(op, x, [("w", vector()), ("b", vector())], eps)
        elif op == "GroupNormalization":
            groups = self.one([g for g in (1, 2, 3, 4, c) if c % g == 0])
            self.node(op, x, [("w", vector()), ("b", vector())], eps | {"num_groups": groups}, opset=21)
        elif op == "LRN":
            self.node(op, x, [], {"size": self.one([1, 3, 5]), "alpha": 0.01, "beta": 0.75, "bias": 1.0})
        else:
            axis = int(self.rng.integers(1, len(shape)))
            row = shape[axis:]
            bias = self.normal(*row) if self.rng.integers(2) else None
            self.node(op, x, [("w", self.normal(*row)), ("b", bias)], eps | {"axis": axis - len(shape)})

    def model(self, kind, nodes, feeds, constants=None):
        """Nodes of any types, the last of which computes `y`."""
        port = lambda n, a: helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)  # noqa: E731
        inputs = [port(n, a) for n, a in feeds.items()]
        weights = [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()]
        graph = helper.make_graph(nodes, "sweep", inputs, [onnx.ValueInfoProto(name="y")], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        inferred = onnx.shape_inference.infer_shapes(model)
        graph.output[0].CopyFrom(inferred.graph.output[0])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        count = sum(c["kind"] == kind for c in self.cases)
        self.keep(f"{kind.lower()}-{count}", kind, model, feeds)

    def free_or_fixed(self, feeds, maybe):
        """Inputs and constants: what `maybe` holds is one or the other, as chance has it."""
        return ({**feeds, **maybe}, {}) if self.rng.integers(2) else (feeds, maybe)

    def shape(self, low=1, high=6, most=4):
        return [int(n) for n in self.rng.integers(low, high, self.rng.integers(1, most + 1))]

    def einsum(self, equation):
        sizes = {c: int(self.rng.integers(2, 7)) for c in equation}
        middle = [int(n) for n in self.rng.integers(2, 4, 2)]
        dims = lambda part: [n for c in part.replace("...", ".") for n in (middle if c == "." else [sizes[c]])]  # noqa: E731
        parts = equation.replace(" ", "").split("->")[0].split(",")
        feeds = {f"x{i}": self.normal(*dims(part)) for i, part in enumerate(parts)}
        node = helper.make_node("Einsum", list(feeds), ["y"], equation=equation)
        last = list(feeds)[-1]
        fixed = {last: feeds.pop(last)} if len(feeds) > 1 else {}
        self.model("Einsum", [node], *self.free_or_fixed(feeds, fixed))

    def gather_elements(self):
        shape = self.shape()
        axis = int(self.rng.integers(len(shape)))
        wanted = [int(self.rng.integers(1, n + 1)) for n in shape]
        wanted[axis] = int(self.rng.integers(1, 9))
        n = shape[axis]
        indices = {"i": self.rng.integers(-n, n, wanted)}
        node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)
        self.model("GatherElements", [node], *self.free_or_fixed({"x": self.normal(*shape)}, indices))

    def tuples(self, shape, batch, count):
        depth = int(self.rng.integers(1, len(shape) - batch + 1))
        parts = [self.rng.integers(-n, n, [*shape[:batch], count]) for n in shape[batch : batch + depth]]
        return np.stack(parts, -1), depth

    def gather_nd(self):
        shape = self.shape()
        batch = int(self.rng.integers(len(shape)))
        indices, _ = self.tuples(shape, batch, int(self.rng.integers(1, 7)))
        node = helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=batch)
        self.model("GatherND", [node], *self.free_or_fixed({"x": self.normal(*shape)}, {"i": indices}))

    def scatter_elements(self):
        shape, reduction = self.shape(), self.one(["none", "add", "mul", "min", "max"])
        axis = int(self.rng.integers(len(shape)))
        n = shape[axis]
        given = [int(self.rng.integers(1, m + 1)) for m in shape]
        # Without a reduction no place may stand twice.
        indices = np.argsort(self.rng.random([*given[:axis], n, *given[axis + 1 :]]), axis).take(range(given[axis]), axis)
        if reduction != "none":
            indices = self.rng.integers(-n, n, given)
        feeds = {"x": self.normal(*shape), "u": self.normal(*given)}
        node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=axis, reduction=reduction)
        self.model("ScatterElements", [node], *self.free_or_fixed(feeds, {"i": indices}))

    def scatter_nd(self):
        shape, reduction = self.shape(2), self.one(["none", "none", "add", "mul", "min", "max"])
        indices, depth = self.tuples(shape, 0, int(self.rng.integers(1, 9)))
        if reduction == "none":
            _, first = np.unique(indices % np.array(shape[:depth]), axis=0, return_index=True)
            indices = indices[np.sort(first)]
        feeds = {"x": self.normal(*shape), "u": self.normal(len(indices), *shape[depth:])}
        node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)
        self.model("ScatterND", [node], *self.free_or_fixed(feeds, {"i": indices}))

    def top_k(self):
        shape = self.shape(1, 400 if self.rng.integers(2) else 9, 3)
        axis = int(self.rng.integers(len(shape)))
        k = np.array([self.rng.integers(1, shape[axis] + 1)])
        node = helper.make_node("TopK", ["x", "k"], [self.one(["y", "v"]), "i"], axis=axis, largest=self.one([0, 1]))
        nodes = [node] if node.output[0] == "y" else [node, helper.make_node("Identity", ["i"], ["y"])]
        # Several of a kind, so that the order of equals counts.
        x = np.round(self.normal(*shape), 1)
        self.model("TopK", nodes, {"x": x}, {"k": k})

    def cumulate(self):
        shape = self.shape(1, 20, 3)
        axis = np.array(int(self.rng.integers(-len(shape), len(shape))))
        x = self.normal(*shape) if self.rng.integers(2) else self.rng.integers(-9, 9, shape)
        options = {"exclusive": self.one([0, 1]), "reverse": self.one([0, 1])}
        self.model("CumSum", [helper.make_node("CumSum", ["x", "a"], ["y"], **options)], {"x": x}, {"a": axis})

    def reverse_sequence(self):
        shape = self.shape(1, 7, 2) + self.shape(2, 7, 2)
        time, batch = self.one([[0, 1], [1, 0]])
        lengths = self.rng.integers(1, shape[time] + 1, shape[batch])
        node = helper.make_node("ReverseSequence", ["x", "n"], ["y"], time_axis=time, batch_axis=batch)
        self.model("ReverseSequence", [node], *self.free_or_fixed({"x": self.normal(*shape)}, {"n": lengths}))

    def suppress(self):
        """Suppression as exporters write it, and what they do with its rows."""
        n, classes, count = self.one([1, 2]), self.one([1, 3]), int(self.rng.integers(2, 120))
        corner, size = self.rng.random((n, count, 2)), self.rng.random((n, count, 2)) * 0.4
        centre = self.one([0, 1])
        boxes = np.concatenate([corner, size] if centre else [corner, corner + size], -1).astype(np.float32)
        scores = self.rng.random((n, classes, count)).astype(np.float32)
        constants = {
            "most": np.array([int(self.rng.integers(1, 30))]),
            "overlap": np.array([self.one([0.3, 0.5, 0.7])], dtype=np.float32),
            "least": np.array([self.one([0.0, 0.4, 2.0])], dtype=np.float32),
            "one": np.array([1]), "two": np.array([2]), "end": np.array([2**62]), "column": np.array(2),
            "pair": np.array([0, 2]), "flat": np.array([-1]),
        }  # fmt: skip
        make = helper.make_node
        nodes = [make("NonMaxSuppression", ["b", "s", "most", "overlap", "least"], ["rows"], center_point_box=centre)]
        nodes += self.one([
            [make("Identity", ["rows"], ["y"])],
            [make("Gather", ["rows", "pair"], ["at"], axis=1), make("GatherND", ["b", "at"], ["y"])],
            [
                make("Slice", ["rows", "two", "end", "one"], ["last"]),
                make("Reshape", ["last", "flat"], ["at"]),
                make("Gather", ["b", "at"], ["y"], axis=1),
            ],
            [
                make("Gather", ["rows", "column"], ["at"], axis=1),
                make("Cast", ["at"], ["number"], to=TensorProto.FLOAT),
                make("Mul", ["number", "overlap"], ["tenth"]),
                make("Unsqueeze", ["tenth", "one"], ["column1"]),
                make("Gather", ["rows", "pair"], ["at2"], axis=1),
                make("GatherND", ["b", "at2"], ["found"]),
                make("Concat", ["found", "column1"], ["y"], axis=1),
            ],
        ])  # fmt: skip
        used = {name for node in nodes for name in node.input}
        constants = {name: a for name, a in constants.items() if name in used}
        self.model("NonMaxSuppression", nodes, {"b": boxes, "s": scores}, constants)

    def light(self, path):
        """A network whose weights, made by ConstantOfShape, are replaced by He-normal ones; its softmax goes."""
        model = onnx.load(path)
        graph = model.graph
        known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        rng = np.random.default_rng(1234)
        variances = {n.input[4] for n in graph.node if n.op_type == "BatchNormalization"}
        weights, nodes = [], []
        for node in graph.node:
            if node.op_type == "ConstantOfShape" and node.input[0] in known:
                shape = [int(d) for d in known[node.input[0]]]
                fan = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 1
                array = rng.standard_normal(shape, dtype=np.float32)
                array *= np.float32((2.0 / fan) ** 0.5 if len(shape) > 1 else 0.1)
                if node.output[0] in variances:
                    array = (np.abs(array) + 0.5).astype(np.float32)
                weights.append(numpy_helper.from_array(array, node.output[0]))
            elif node.op_type == "Softmax" and node.output[0] == graph.output[0].name:
                graph.output[0].name = node.input[0]
                graph.output[0].type.tensor_type.ClearField("shape")
            else:
                nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(weights)
        initial = {i.name for i in graph.initializer}
        name, shape = next(
            (i.name, [d.dim_value for d in i.type.tensor_type.shape.dim]) for i in graph.input if i.name not in initial
        )
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        self.keep(path.stem, "network", model, {name: x})


def main(folder):
    folder = pathlib.Path(folder)
    sweep = Sweep(folder)
    for _ in range(60):
        sweep.conv()
    for _ in range(40):
        sweep.conv_transpose()
        sweep.resize()
    for _ in range(25):
        sweep.pool("MaxPool")
        sweep.pool("AveragePool")
    for _ in range(10):
        for op in ("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "LRN"):
            sweep.norm(op)
    # Products, of which one side may be weights, batches, traces, sums, and the letters left to their order.
    for equation in (
        "ij,jk->ik", "bij,bjk->bik", "bhqd,bhkd->bhqk", "bqhd,hde->bqe", "bsd,de->bse", "bsd,de", "i,j->ij", "i,i->", "ij->ji",
        "ij->", "ii->i", "ii", "...ii->...i", "bii,bij->bj", "...ij,...jk->...ik", "...,...->...", "i...->...", "ab,bc,cd->ad",
        "ab,cd,bd->ca", "abc,abc->b", "nchw,kc->nkhw", "bchw,bkhw->bck", "ba,a", "ijij->ji",
    ):  # fmt: skip
        sweep.einsum(equation)
    for _ in range(16):
        sweep.gather_elements()
        sweep.gather_nd()
        sweep.scatter_elements()
        sweep.scatter_nd()
        sweep.top_k()
        sweep.suppress()
    for _ in range(8):
        sweep.cumulate()
        sweep.reverse_sequence()
    onnx_sweep_sampled.add(sweep)
    data = pathlib.Path(onnx.backend.test.__file__).parent / "data" / "light"
    for path in sorted(data.glob("*.onnx")):
        sweep.light(path)
    (folder / "sweep.json").write_text(json.dumps(sweep.cases))
    print(f"{len(sweep.cases)} cases against ONNX Runtime in {folder}")


if __name__ == "__main__":
    main(sys.argv[1])
