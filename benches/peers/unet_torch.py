"""The bundled UNet in PyTorch and diffusers, on the CPU with two threads.

    unet_torch.py PICTURES

Answers each line on standard input by running so many steps (the line holds
the number) and printing the seconds that they took. A step is one pass with
classifier-free guidance: every picture with and without its label.
"""
import sys
import time
from pathlib import Path

import torch
from diffusers import UNet2DModel

MODEL = Path(__file__).resolve().parents[2] / "models" / "letters-unet"
GUIDANCE = 2.0
LABEL, NO_LABEL = 0, 36

torch.set_num_threads(2)
batch = int(sys.argv[1])
unet = UNet2DModel.from_pretrained(MODEL, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()
latent = torch.randn(batch, 1, 32, 32)
labels = torch.tensor([LABEL] * batch + [NO_LABEL] * batch)


@torch.inference_mode()
def step():
    with_label, without = unet(latent.repeat(2, 1, 1, 1), 500, class_labels=labels).sample.chunk(2)
    return without + GUIDANCE * (with_label - without)


print(f"PyTorch {torch.__version__}, CPU, {torch.get_num_threads()} threads", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        step()
    print(time.perf_counter() - start, flush=True)
