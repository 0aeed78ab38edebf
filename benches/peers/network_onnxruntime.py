"""A network in onnxruntime, on the CPU with two threads.

    network_onnxruntime.py FOLDER NAME     FOLDER/NAME.onnx, made by network_onnx.py

Answers each line on standard input by running the network so many times (the line
holds the number) on one picture of 224x224 and printing the seconds that they took.
"""
import sys
import time

import numpy as np
import onnxruntime

folder, name = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
session = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options, providers=["CPUExecutionProvider"])
picture = np.random.default_rng(7).standard_normal((1, 3, 224, 224), np.float32)
print(f"onnxruntime {onnxruntime.__version__}, CPU, 2 threads", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        session.run(None, {"x": picture})
    print(time.perf_counter() - start, flush=True)
