"""Networks of torchvision's with random weights as ONNX files that wonnx 0.5.1 reads.

    network_onnx.py FOLDER NAME...

It wants the shape of every value, no transposed Gemm, and no means over axes but the global pool.
"""
import pathlib
import sys

import numpy as np
import onnx
import torch
import torchvision
from onnx import helper, numpy_helper

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name in sys.argv[2:]:
    model = getattr(torchvision.models, name)(weights=None, num_classes=10).eval()
    path = folder / f"{name}.onnx"
    example = torch.randn(1, 3, 224, 224)
    torch.onnx.export(model, (example,), path, opset_version=13, dynamo=False, input_names=["x"], output_names=["y"])
    made = onnx.load(path)
    graph, nodes = made.graph, []
    weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Gemm":
            product = node.name + ".product"
            x, w, b = node.input
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weights[w].T), w + ".t"))
            nodes += [helper.make_node("MatMul", [x, w + ".t"], [product]), helper.make_node("Add", [product, b], node.output)]
        elif node.op_type == "ReduceMean":
            nodes.append(helper.make_node("GlobalAveragePool", node.input[:1], node.output))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    made = onnx.shape_inference.infer_shapes(made)
    onnx.checker.check_model(made)
    onnx.save(made, path)
    print(path)
