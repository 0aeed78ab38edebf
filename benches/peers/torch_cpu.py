"""PyTorch on the CPU, on all cores that the process may use.

    torch_cpu.py FOLDER
"""
import os
import sys

import torch

from items import load
from serve import serve

folder = sys.argv[1]
threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
torch.set_num_threads(threads)


def prepare(item):
    module, inputs = load(folder, item)
    arguments = list(inputs.values())

    def run():
        with torch.inference_mode():
            return module(*arguments).numpy()

    return run


serve(f"PyTorch {torch.__version__}", f"CPU, {threads} threads", False, prepare)
