"""Cases of onnx_sweep.py for operators that read at computed places, and for quantised ones: single nodes of random shapes,
scales and zero points, and a small network as ONNX Runtime's static quantiser writes it.

Integers come out as ONNX Runtime's, to the last unit, but where the case says how many units they may be off.
"""

import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

OPSET = 20
MICROSOFT = "com.microsoft"


class Sampled:
    """Cases for `sweep`, an onnx_sweep.Sweep."""

    def __init__(self, sweep):
        self.sweep, self.rng, self.one, self.normal = sweep, sweep.rng, sweep.one, sweep.normal

    def keep(self, kind, nodes, feeds, constants=None, *case, **options):
        """Nodes of any types, the last of which computes `y`; what may be constant is given at run time, as chance has it."""
        self.fixed(kind, nodes, *self.sweep.free_or_fixed(feeds, constants or {}), *case, **options)

    def fixed(self, kind, nodes, free, fixed, units=None, elem=TensorProto.FLOAT, opset=OPSET):
        port = lambda n, a: helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)  # noqa: E731
        inputs = [port(n, a) for n, a in free.items()]
        weights = [numpy_helper.from_array(a, n) for n, a in fixed.items()]
        outputs = [helper.make_tensor_value_info("y", elem, None)]
        graph = helper.make_graph(nodes, "sweep", inputs, outputs, weights)
        imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=9)
        count = sum(c["kind"] == kind for c in self.sweep.cases)
        self.sweep.keep(f"{kind.lower()}-{count}", kind, model, free)
        self.sweep.cases[-1]["units"] = units

    # Computed places.

    def grid_sample(self):
        opset = self.one([16, 20])
        modes = ["bilinear", "nearest", "bicubic"] if opset == 16 else ["linear", "nearest", "cubic"]
        options = {
            "mode": self.one(modes),
            "padding_mode": self.one(["zeros", "border", "reflection"]),
            "align_corners": self.one([0, 1]),
        }
        n, c = self.one([1, 2]), self.one([1, 3, 4, 8])
        h, w, oh, ow = (int(v) for v in self.rng.integers(1, 12, 4))
        grid = self.rng.uniform(-1.6, 1.6, (n, oh, ow, 2)).astype(np.float32)
        node = helper.make_node("GridSample", ["x", "grid"], ["y"], **options)
        self.keep("GridSample", [node], {"x": self.normal(n, c, h, w)}, {"grid": grid}, opset=opset)

    def roi_align(self):
        opset = self.one([10, 16])
        options = {
            "mode": self.one(["avg", "max"]),
            "output_height": int(self.rng.integers(1, 8)),
            "output_width": int(self.rng.integers(1, 8)),
            "sampling_ratio": self.one([0, 0, 1, 2, 3]),
            "spatial_scale": self.one([1.0, 0.25]),
        }
        if opset == 16:
            options["coordinate_transformation_mode"] = self.one(["half_pixel", "output_half_pixel"])
        n, c = self.one([1, 3]), self.one([1, 3, 4, 8])
        h, w, r = (int(v) for v in self.rng.integers(2, 16, 3))
        extent = np.array([w, h, w, h]) / options["spatial_scale"]
        rois = self.rng.uniform(-0.3, 1.3, (r, 4)) * extent
        # Corners in their order; ONNX Runtime does not define others with half pixels.
        rois = np.concatenate([np.minimum(rois[:, :2], rois[:, 2:]), np.maximum(rois[:, :2], rois[:, 2:])], 1)
        feeds = {"x": self.normal(n, c, h, w), "rois": rois.astype(np.float32)}
        node = helper.make_node("RoiAlign", ["x", "rois", "at"], ["y"], **options)
        self.keep("RoiAlign", [node], feeds, {"at": self.rng.integers(0, n, r)}, opset=opset)

    def deform_conv(self):
        groups, sets = self.one([(1, 1), (1, 2), (2, 1), (2, 4)])
        c, out = 4 * self.one([1, 2]), self.one([2, 4, 6])
        h, w = (int(v) for v in self.rng.integers(4, 12, 2))
        kernel, strides, dilations = ([int(v) for v in self.rng.integers(1, high, 2)] for high in (4, 3, 3))
        pads = [int(v) for v in self.rng.integers(0, 3, 4)]
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
        oh, ow = ((n + pads[i] + pads[i + 2] - reach[i]) // strides[i] + 1 for i, n in enumerate((h, w)))
        taps = sets * kernel[0] * kernel[1]
        feeds = {"x": self.normal(2, c, h, w), "offset": self.normal(2, 2 * taps, oh, ow) * 2}
        constants = {"w": self.normal(out, c // groups, *kernel)}
        names = ["x", "w", "offset"]
        if self.rng.integers(2):
            constants["b"] = self.normal(out)
        if self.rng.integers(2):
            feeds["mask"] = self.normal(2, taps, oh, ow)
        names += ["b" if "b" in constants else "", "mask" if "mask" in feeds else ""]
        options = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups, "offset_group": sets}
        node = helper.make_node("DeformConv", names, ["y"], **options)
        self.keep("DeformConv", [node], feeds, constants)

    def col2im(self):
        size, kernel, strides, dilations = ([int(v) for v in self.rng.integers(1, high, 2)] for high in (9, 4, 4, 3))
        pads = [int(v) for v in self.rng.integers(0, 3, 4)]
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
        room = [size[i] + pads[i] + pads[i + 2] - reach[i] for i in range(2)]
        if min(room) < 0:
            return
        blocks = np.prod([r // s + 1 for r, s in zip(room, strides)])
        x = self.normal(self.one([1, 2]), self.one([1, 3, 4]) * int(np.prod(kernel)), int(blocks))
        options = {"strides": strides, "dilations": dilations, "pads": pads}
        node = helper.make_node("Col2Im", ["x", "size", "block"], ["y"], **options)
        self.fixed("Col2Im", [node], {"x": x}, {"size": np.array(size), "block": np.array(kernel)})

    def places(self):
        """A pool's places, and the way back."""
        size = self.sweep.spatial(4, 10)
        kernel, attributes = self.sweep.window(len(size))
        if attributes.get("auto_pad", "").startswith("SAME"):
            # Of strides beyond the kernel ONNX Runtime makes padding below zero, which cuts off the beginning.
            attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel)]
        x = np.round(self.normal(self.one([1, 2]), self.one([1, 3]), *size), 1)
        pool = helper.make_node("MaxPool", ["x"], ["v", "y"], kernel_shape=kernel, storage_order=self.one([0, 1]), **attributes)
        self.tried("MaxPoolPlaces", [pool], {"x": x}, {}, 0, TensorProto.INT64)
        side = [2] * len(size)
        nodes = [
            helper.make_node("MaxPool", ["x"], ["v", "i"], kernel_shape=side, strides=side),
            helper.make_node("MaxUnpool", ["v", "i"], ["y"], kernel_shape=side, strides=side),
        ]
        self.keep("MaxUnpool", nodes, {"x": x[..., : size[-1] // 2 * 2] if len(size) == 1 else x[..., : size[0] // 2 * 2, : size[1] // 2 * 2]})

    def norm_pool(self):
        size = self.sweep.spatial()
        kernel, attributes = self.sweep.window(len(size))
        if "auto_pad" in attributes:
            attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel)]
        attributes |= {"kernel_shape": kernel, "p": self.one([1, 2, 3])}
        self.tried("LpPool", [helper.make_node("LpPool", ["x"], ["y"], **attributes)], {"x": self.normal(1, 3, *size)})

    def chosen(self):
        shape = self.sweep.shape(1, 30, 3)
        x = np.round(self.normal(*shape)) if self.rng.integers(2) else self.rng.integers(-1, 2, shape)
        if self.rng.integers(2):
            self.keep("NonZero", [helper.make_node("NonZero", ["x"], ["y"])], {"x": x}, {}, 0, TensorProto.INT64)
            return
        axis = self.one([None, *range(len(shape))])
        room = int(np.prod(shape)) if axis is None else shape[axis]
        condition = self.rng.integers(0, 2, int(self.rng.integers(1, room + 1))).astype(bool)
        node = helper.make_node("Compress", ["x", "c"], ["y"], **({} if axis is None else {"axis": axis}))
        self.keep("Compress", [node], {"x": x.astype(np.float32)}, {"c": condition})

    # Integers.

    def integers(self, dtype, *shape, weight=False):
        limits = np.iinfo(dtype)
        # On processors without VNNI ONNX Runtime adds pairs of products with int8 in 16 bits, which saturate; seven bits never do.
        low, high = (-64, 63) if weight and dtype == np.int8 else (limits.min, limits.max)
        return self.rng.integers(low, high + 1, shape).astype(dtype)

    def scale(self, *shape, low=0.01, high=0.2):
        return self.rng.uniform(low, high, shape).astype(np.float32)

    def quantize(self):
        dtype = self.one([np.uint8, np.int8])
        shape = self.sweep.shape(2, 9, 4)
        axis = int(self.rng.integers(len(shape)))
        of = self.one([(), (shape[axis],)])
        scale = self.scale(*of)
        node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=axis)
        spread = [1] * len(shape)
        if of:
            spread[axis] = shape[axis]
        # Halves of a step, so that many lie in the middle, as far as f32 can say.
        steps = self.rng.integers(-600, 600, shape).astype(np.float32) / 2
        x = (steps * scale.reshape(spread)).astype(np.float32)
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.keep("QuantizeLinear", [node], {"x": x}, {"s": scale, "z": self.integers(dtype, *of)}, 0, elem)

    def dequantize(self):
        dtype = self.one([np.uint8, np.int8, np.int32])
        shape = self.sweep.shape(2, 9, 4)
        axis = int(self.rng.integers(len(shape)))
        of = self.one([(), (shape[axis],)])
        zero = np.zeros(of, np.int32) if dtype == np.int32 else self.integers(dtype, *of)
        x = self.rng.integers(-(2**20), 2**20, shape).astype(np.int32) if dtype == np.int32 else self.integers(dtype, *shape)
        node = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], axis=axis)
        self.keep("DequantizeLinear", [node], {"x": x}, {"s": self.scale(*of), "z": zero})

    def dynamic(self):
        shape = self.sweep.shape(1, 40, 3)
        x = self.normal(*shape) * self.one([0, 1, 1, 30]) + self.one([0, 5, -5])
        x = x.astype(np.float32)
        wanted = self.one([0, 1, 2])
        outputs = [["y", "s", "z"], ["q", "y", "z"], ["q", "s", "y"]][wanted]
        elem = TensorProto.FLOAT if wanted == 1 else TensorProto.UINT8
        node = helper.make_node("DynamicQuantizeLinear", ["x"], outputs)
        self.keep("DynamicQuantizeLinear", [node], {"x": x}, {}, None if wanted == 1 else 0, elem)

    def geometry(self):
        """A random convolution: shapes of the source and the weight, attributes."""
        size = self.sweep.spatial()
        kernel, attributes = self.sweep.window(len(size))
        groups = self.one([1, 1, 2, 3])
        each, out = int(self.rng.integers(1, 9)), int(self.rng.integers(1, 6)) * groups
        if self.rng.integers(3) == 0:
            groups, each, out = 8, 1, 8
        return [self.one([1, 2]), each * groups, *size], [out, each, *kernel], attributes | {"group": groups}

    def qlinear_conv(self):
        source, weight, attributes = self.geometry()
        act, wt = self.one([(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
        of = (weight[0],) if self.rng.integers(2) else ()
        constants = {
            "xs": self.scale(), "xz": self.integers(act), "w": self.integers(wt, *weight, weight=True),
            "ws": self.scale(*of), "wz": np.zeros(of, wt) if wt == np.int8 else np.broadcast_to(self.integers(wt), of).copy(),
            "ys": self.scale(low=1, high=9), "yz": self.integers(act),
        }  # fmt: skip
        if self.rng.integers(2):
            constants["b"] = self.rng.integers(-9000, 9000, weight[0]).astype(np.int32)
        node = helper.make_node("QLinearConv", ["x", *constants], ["y"], **attributes)
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(act))
        self.tried("QLinearConv", [node], {"x": self.integers(act, *source)}, constants, 0, elem)

    def conv_integer(self):
        source, weight, attributes = self.geometry()
        constants = {"w": self.integers(np.uint8, *weight), "xz": self.integers(np.uint8), "wz": self.integers(np.uint8)}
        node = helper.make_node("ConvInteger", ["x", *constants], ["y"], **attributes)
        feeds = {"x": self.integers(np.uint8, *source)}
        self.tried("ConvInteger", [node], feeds, constants, 0, TensorProto.INT32)

    def tried(self, *case):
        try:
            self.keep(*case)
        except Exception as error:  # a window larger than its map
            if type(error).__name__ not in ("Fail", "InvalidArgument", "RuntimeException"):
                raise

    def matrices(self):
        m, k, n = (int(v) for v in self.rng.integers(1, 40, 3))
        batch = self.one([[], [2], [2, 3]])
        return [*batch, m, k], [k, n] if self.rng.integers(2) else [*batch, k, n]

    def matmul_integer(self):
        left, right = self.matrices()
        wt = self.one([np.uint8, np.int8])
        of = self.one([(), (right[-1],)]) if len(right) == 2 else ()
        constants = {"b": self.integers(wt, *right, weight=True), "az": self.integers(np.uint8), "bz": self.integers(wt, *of, weight=True)}
        node = helper.make_node("MatMulInteger", ["a", *constants], ["y"])
        self.keep("MatMulInteger", [node], {"a": self.integers(np.uint8, *left)}, constants, 0, TensorProto.INT32)

    def qlinear_matmul(self):
        left, right = self.matrices()
        act, wt = self.one([(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
        of = self.one([(), (right[-1],)]) if len(right) == 2 else ()
        constants = {
            "as": self.scale(), "az": self.integers(act), "b": self.integers(wt, *right, weight=True),
            "bs": self.scale(*of), "bz": self.integers(wt, *of, weight=True), "ys": self.scale(low=1, high=9), "yz": self.integers(act),
        }  # fmt: skip
        node = helper.make_node("QLinearMatMul", ["a", *constants], ["y"])
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(act))
        self.keep("QLinearMatMul", [node], {"a": self.integers(act, *left)}, constants, 0, elem)

    def chain(self):
        """Numbers through a grid, a convolution with weights from a grid of bytes, and a grid again. Sums in f32 come in another
        order than ONNX Runtime's, so that a number in the middle between two steps may go to either: one unit."""
        source, weight, attributes = self.geometry()
        of = (weight[0],) if self.rng.integers(2) else ()
        constants = {
            "xs": self.scale(), "xz": self.integers(np.uint8), "w": self.integers(np.int8, *weight), "ws": self.scale(*of),
            "wz": np.zeros(of, np.int8), "b": self.rng.integers(-9000, 9000, weight[0]).astype(np.int32),
            "bs": self.scale(*of, low=1e-3, high=2e-3), "bz": np.zeros(of, np.int32), "ys": self.scale(low=0.1, high=1), "yz": self.integers(np.uint8),
        }  # fmt: skip
        make = helper.make_node
        nodes = [
            make("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            make("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            make("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
            make("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0),
            make("Conv", ["xd", "wd", "bd"], ["c"], **attributes),
            make("Relu", ["c"], ["r"]),
            make("QuantizeLinear", ["r", "ys", "yz"], ["y"]),
        ]
        self.tried("QDQ", nodes, {"x": self.normal(*source) * 8}, constants, 1, TensorProto.UINT8)

    def microsoft(self, op):
        """Operators between two grids. ONNX Runtime works with tables, or multiplies by reciprocals: one unit."""
        dtype = self.one([np.uint8, np.int8])
        shape = [self.one([1, 2]), self.one([1, 3, 4]), *[int(n) for n in self.rng.integers(3, 9, 2)]]
        x, other = self.integers(dtype, *shape), self.integers(dtype, *shape)
        if self.rng.integers(3) == 0:
            other = other[:, :, :1, :1].copy()
        grid = lambda name, low=0.01, high=0.2: {f"{name}s": self.scale(low=low, high=high), f"{name}z": self.integers(dtype)}  # noqa: E731
        a, b, y = grid("a"), grid("b"), grid("y", 0.05, 0.3)
        attributes = {}
        if op in ("QLinearAdd", "QLinearMul"):
            constants, names = {**a, "b": other, **b, **y}, ["x", *a, "b", *b, *y]
        elif op == "QLinearConcat":
            other = self.integers(dtype, *shape)
            constants, names, attributes = {**y, **a, "b": other, **b}, [*y, "x", *a, "b", *b], {"axis": 1}
        else:
            if op == "QLinearSigmoid":
                y["ys"] = np.float32(1 / 256).reshape(())
            constants, names = {**a, **y}, ["x", *a, *y]
            if op == "QLinearAveragePool":
                attributes = {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 0, 1], "count_include_pad": self.one([0, 1])}
            if op == "QLinearLeakyRelu":
                attributes = {"alpha": 0.1}
        node = helper.make_node(op, names, ["y"], domain=MICROSOFT, **attributes)
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        # ONNX Runtime wants scales and zero points of these as constants.
        self.fixed(op, [node], {"x": x}, constants, 1, elem)

    # A network.

    def network(self, form, activation, weight, per_channel):
        """Convolutions (one of them depthwise), a residual sum, a gate, pools, an enlargement, a join and a fully connected
        layer, quantised with ranges that random pictures have."""
        rng = np.random.default_rng(77)
        weights, nodes = [], []

        def constant(name, *shape, fan):
            values = rng.standard_normal(shape) * (2 / fan) ** 0.5
            weights.append(numpy_helper.from_array(values.astype(np.float32), name))
            return name

        def conv(x, name, outputs, inputs, kernel, groups=1, **attributes):
            w = constant(f"{name}.w", outputs, inputs // groups, kernel, kernel, fan=inputs // groups * kernel**2)
            b = constant(f"{name}.b", outputs, fan=50)
            pads = [kernel // 2] * 4
            nodes.append(helper.make_node("Conv", [x, w, b], [name], name, pads=pads, group=groups, **attributes))
            return name

        def op(kind, inputs, name, **attributes):
            nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
            return name

        stem = op("Relu", [conv("x", "stem", 8, 3, 3, strides=[2, 2])], "stem.relu")
        wide = op("Relu", [conv(stem, "wide", 16, 8, 1)], "wide.relu")
        deep = op("LeakyRelu", [conv(wide, "deep", 16, 16, 3, groups=16)], "deep.relu", alpha=0.1)
        narrow = conv(deep, "narrow", 8, 16, 1)
        total = op("Add", [narrow, stem], "sum")
        gate = op("GlobalAveragePool", [total], "gate.mean")
        gate = op("Sigmoid", [conv(gate, "gate", 8, 8, 1)], "gate.sigmoid")
        gated = op("Mul", [total, gate], "gated")
        half = op("MaxPool", [gated], "half", kernel_shape=[2, 2], strides=[2, 2])
        scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
        weights.append(scales)
        large = op("Resize", [op("Relu", [conv(half, "low", 8, 8, 3)], "low.relu"), "", "scales"], "large", mode="nearest")
        both = op("Concat", [large, gated], "both", axis=1)
        last = op("Relu", [conv(both, "last", 12, 16, 3)], "last.relu")
        flat = op("Flatten", [op("AveragePool", [last], "mean", kernel_shape=[4, 4], strides=[4, 4])], "flat")
        weights.append(numpy_helper.from_array((rng.standard_normal((10, 192)) / 14).astype(np.float32), "fc.w"))
        nodes.append(helper.make_node("Gemm", [flat, "fc.w", constant("fc.b", 10, fan=50)], ["y"], "fc", transB=1))
        port = helper.make_tensor_value_info
        inputs, outputs = [port("x", TensorProto.FLOAT, [1, 3, 32, 32])], [port("y", TensorProto.FLOAT, [1, 10])]
        model = helper.make_model(helper.make_graph(nodes, "net", inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

        class Pictures(CalibrationDataReader):
            def __init__(self):
                self.left = iter([{"x": rng.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(8)])

            def get_next(self):
                return next(self.left, None)

        with tempfile.TemporaryDirectory() as folder:
            onnx.save(onnx.shape_inference.infer_shapes(model), f"{folder}/float.onnx")
            quantize_static(
                f"{folder}/float.onnx", f"{folder}/int.onnx", Pictures(), quant_format=form, activation_type=activation,
                weight_type=weight, per_channel=per_channel, reduce_range=weight == QuantType.QInt8,
            )  # fmt: skip
            quantised = onnx.load(f"{folder}/int.onnx")
        names = {QuantFormat.QDQ: "qdq", QuantFormat.QOperator: "qoperator"}
        name = f"{names[form]}-{activation.name}-{weight.name}-{'channels' if per_channel else 'tensor'}".lower()
        x = np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32)
        self.sweep.keep(name, "quantised", quantised, {"x": x})


def add(sweep):
    cases = Sampled(sweep)
    for _ in range(40):
        cases.grid_sample()
        cases.roi_align()
        cases.qlinear_conv()
    for _ in range(20):
        cases.quantize()
        cases.dequantize()
        cases.conv_integer()
        cases.matmul_integer()
        cases.qlinear_matmul()
        cases.chain()
        cases.deform_conv()
        cases.col2im()
        cases.places()
        cases.norm_pool()
        cases.chosen()
    for _ in range(12):
        cases.dynamic()
    for op in ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"):
        for _ in range(6):
            cases.microsoft(f"QLinear{op}")
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        for types in ((QuantType.QUInt8, QuantType.QInt8), (QuantType.QInt8, QuantType.QInt8), (QuantType.QUInt8, QuantType.QUInt8)):
            for per_channel in (False, True):
                if types[1] != QuantType.QUInt8 or not per_channel:
                    cases.network(form, *types, per_channel)
