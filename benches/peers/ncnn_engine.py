"""ncnn's own wheel, on Vulkan or on the CPU, in f32.

    ncnn_engine.py vulkan|cpu FOLDER     reads FOLDER/ITEM.ncnn.param and .bin, as pnnx makes them

ncnn takes its input from the host and gives its output to the host in each run; on the CPU that is a copy at most.
"""
import os
import pathlib
import sys

import ncnn
import numpy as np
import safetensors.numpy

from serve import Unsupported, serve

where, folder = sys.argv[1:]
vulkan = where == "vulkan"
threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
if vulkan:
    ncnn.create_gpu_instance()
    if ncnn.get_gpu_count() == 0:
        sys.exit("ncnn finds no Vulkan device")


def prepare(item):
    if not pathlib.Path(f"{folder}/{item}.ncnn.param").exists():
        raise Unsupported(f"pnnx makes no ncnn model of {item}")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = vulkan
    net.opt.num_threads = threads
    # All engines compute in f32.
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    if net.load_param(f"{folder}/{item}.ncnn.param") or net.load_model(f"{folder}/{item}.ncnn.bin"):
        raise RuntimeError("ncnn does not load the model")
    on_host = sorted({layer.type for layer in net.layers() if not layer.support_vulkan})
    if vulkan and on_host:
        raise Unsupported(f"ncnn has no {' and no '.join(on_host)} on Vulkan and would compute it on the CPU")
    tensors = safetensors.numpy.load_file(f"{folder}/{item}.safetensors")
    names = [name for name in ("x", "a", "b", "q", "k", "v") if name in tensors]
    # ncnn knows no batches.
    arrays = [tensors[name][0] if tensors[name].ndim == 4 else tensors[name] for name in names]
    inputs = {f"in{at}": ncnn.Mat(np.ascontiguousarray(array)).clone() for at, array in enumerate(arrays)}

    def run():
        extractor = net.create_extractor()
        for name, mat in inputs.items():
            extractor.input(name, mat)
        code, out = extractor.extract("out0")
        if code:
            raise RuntimeError(f"ncnn's extract gives {code}")
        return np.array(out)

    return run


device = ncnn.get_gpu_info(0).device_name() if vulkan else f"CPU, {threads} threads"
serve(f"ncnn {ncnn.__version__}", device, vulkan, prepare)
