"""The items as files of other engines, out of what `cargo bench --bench peers -- write FOLDER` wrote.

    export.py FOLDER [ITEM…]

ITEM.onnx                  for onnxruntime, tract and wonnx: shapes of all values, batch norms folded
ITEM.ncnn.param, .bin      for ncnn, by pnnx, where that is installed
ITEM.layers, .folded.safetensors   networks as a list of layers, for engines whose networks are code
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import safetensors.numpy
import torch
from onnx import helper, numpy_helper

from diffusers.models.attention_processor import AttnProcessor
from items import MAKE, Attention, Denoiser, SpelledAttention, load

folder = pathlib.Path(sys.argv[1])


def to_onnx(item, module, inputs):
    """Opset 13 in operators that all of them know: no transposed Gemm, no means but the global pool."""
    path = folder / f"{item}.onnx"
    if isinstance(module, Attention):
        module = SpelledAttention()
    if isinstance(module, Denoiser):
        for layer in module.modules():
            if hasattr(layer, "set_processor"):
                layer.set_processor(AttnProcessor())
    torch.onnx.export(
        module, tuple(inputs.values()), path, opset_version=13, dynamo=False, input_names=list(inputs), output_names=["y"]
    )
    model = onnx.load(path)
    graph, nodes = model.graph, []
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    # Weights that several layers share come by another name.
    alias = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity" and n.input[0] in constants}
    for node in graph.node:
        node.input[:] = [alias.get(name, name) for name in node.input]
        if node.output[0] in alias:
            continue
        if node.op_type == "Constant":
            # wonnx knows constants as weights alone.
            value = numpy_helper.to_array(node.attribute[0].t)
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            continue
        if node.op_type == "Gemm":
            x, w, b = node.input
            transposed = next((a.i for a in node.attribute if a.name == "transB"), 0)
            matrix = np.ascontiguousarray(constants[w].T) if transposed else constants[w]
            graph.initializer.append(numpy_helper.from_array(matrix, w + ".matrix"))
            product = node.output[0] + ".product"
            nodes.append(helper.make_node("MatMul", [x, w + ".matrix"], [product], name=product))
            nodes.append(helper.make_node("Add", [product, b], node.output, name=node.output[0] + ".sum"))
        elif node.op_type == "ReduceMean":
            nodes.append(helper.make_node("GlobalAveragePool", node.input[:1], node.output, name=node.name))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return model


def to_ncnn(item, module, inputs):
    pnnx = shutil.which("pnnx")
    if pnnx is None:
        print("no pnnx: ncnn gets no models", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/m.pt"
        torch.jit.trace(module, tuple(inputs.values())).save(path)
        shapes = ",".join(f"[{','.join(map(str, x.shape))}]f32" for x in inputs.values())
        command = [pnnx, path, f"inputshape={shapes}", "fp16=0"]
        done = subprocess.run(command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        made = pathlib.Path(f"{scratch}/m.ncnn.param")
        if done.returncode or not made.exists():
            print(f"pnnx makes no ncnn model of {item}: {done.stdout[-300:]}", file=sys.stderr)
            return
        for end in ("param", "bin"):
            shutil.copy(f"{scratch}/m.ncnn.{end}", folder / f"{item}.ncnn.{end}")


def to_layers(item, model):
    """A line a layer: `OP OUTPUT INPUT… NAME=NUMBER…`, values by their numbers, 0 the input; conv and linear take the next weights."""
    graph = model.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    number, lines, weights = {graph.input[0].name: 0}, [], {}
    producer = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = [name for name in node.input if name not in constants]
        options, op = {}, node.op_type
        if op in ("Constant", "Identity", "Flatten", "Reshape", "Squeeze"):
            if op != "Constant":
                number[node.output[0]] = number[node.input[0]]
            continue
        if op == "Conv":
            at = len(weights) // 2
            weights[f"{at}.weight"], weights[f"{at}.bias"] = constants[node.input[1]], constants[node.input[2]]
            pads, strides, kernel = attributes["pads"], attributes["strides"], attributes["kernel_shape"]
            assert len({*pads}) == len({*strides}) == len({*kernel}) == 1, "square ones alone"
            options = {"weight": at, "stride": strides[0], "pad": pads[0], "groups": attributes["group"]}
        elif op == "MaxPool":
            options = {"kernel": attributes["kernel_shape"][0], "stride": attributes["strides"][0], "pad": attributes["pads"][0]}
        elif op == "MatMul":
            at = len(weights) // 2
            weights[f"{at}.weight"] = constants[node.input[1]]
            options = {"weight": at}
            number[node.output[0]] = number[inputs[0]]
            pending = (at, options, inputs)
            continue
        elif op == "Add" and len(inputs) == 1:
            at, options, inputs = pending
            weights[f"{at}.bias"] = constants[next(name for name in node.input if name in constants)]
            op = "Linear"
        elif op == "Clip":
            low, high = (float(constants[name]) for name in node.input[1:3])
            assert (low, high) == (0, 6)
            op = "Relu6"
        elif op == "Sigmoid":
            # x · sigmoid(x) is written as its own layer below.
            users = [n for n in graph.node if node.output[0] in n.input]
            if len(users) == 1 and users[0].op_type == "Mul" and node.input[0] in users[0].input:
                continue
        elif op == "Mul":
            gate = next((name for name in inputs if producer.get(name) is not None and producer[name].op_type == "Sigmoid"), None)
            if gate is not None and producer[gate].input[0] in inputs:
                op, inputs = "Silu", [producer[gate].input[0]]
            elif gate is not None:
                # A factor a channel.
                op, inputs = "Scale", [next(name for name in inputs if name != gate), gate]
        elif op not in ("Relu", "Add", "GlobalAveragePool"):
            raise ValueError(f"{item}: no layer for {op}")
        number[node.output[0]] = len(lines) + 1
        words = [op.lower(), len(lines) + 1, *(number[name] for name in inputs), *(f"{k}={v}" for k, v in options.items())]
        lines.append(" ".join(map(str, words)))
    (folder / f"{item}.layers").write_text("\n".join(lines) + "\n")
    arrays = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    safetensors.numpy.save_file(arrays, folder / f"{item}.folded.safetensors")


chosen = sys.argv[2:] or list(MAKE)
for item in chosen:
    module, inputs = load(folder, item)
    model = to_onnx(item, module, inputs)
    if item in ("resnet50", "mobilenet_v2", "efficientnet_b0"):
        to_layers(item, model)
    print(f"{item}.onnx", flush=True)
for item in chosen:
    to_ncnn(item, *load(folder, item))
    print(f"{item}.ncnn", flush=True)
