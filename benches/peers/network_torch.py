"""A network of torchvision's in PyTorch, on the CPU with two threads.

    network_torch.py NAME

Answers each line on standard input by running the network so many times (the line
holds the number) on one picture of 224x224 and printing the seconds that they took.
"""
import sys
import time

import torch
import torchvision

torch.set_num_threads(2)
model = getattr(torchvision.models, sys.argv[1])(weights=None, num_classes=10).eval()
picture = torch.randn(1, 3, 224, 224)
print(f"PyTorch {torch.__version__}, CPU, {torch.get_num_threads()} threads", flush=True)
with torch.inference_mode():
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            model(picture)
        print(time.perf_counter() - start, flush=True)
