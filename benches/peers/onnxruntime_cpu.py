"""onnxruntime on the CPU, on all cores that the process may use.

    onnxruntime_cpu.py FOLDER
    onnxruntime_cpu.py FOLDER --profile ITEM    where a run's time goes, by operator
"""
import os
import sys

import onnxruntime
import safetensors.numpy

from onnxruntime_profile import profiled, show
from serve import serve

folder = sys.argv[1]
threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1


def load(item):
    session = onnxruntime.InferenceSession(f"{folder}/{item}.onnx", options, providers=["CPUExecutionProvider"])
    tensors = safetensors.numpy.load_file(f"{folder}/{item}.safetensors")
    return session, {i.name: tensors[i.name] for i in session.get_inputs()}


def prepare(item):
    session, inputs = load(item)
    return lambda: session.run(None, inputs)[0]


if "--profile" in sys.argv:
    options = profiled(options)
    show(*load(sys.argv[3]))
    sys.exit()

# Its threads spin for some 40 ms after a run.
serve(f"onnxruntime {onnxruntime.__version__}", f"CPU, {threads} threads", False, prepare, settle=0.1)
