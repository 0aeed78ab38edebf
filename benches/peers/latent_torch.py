"""A part of latent diffusion in PyTorch and diffusers, on the CPU with two threads.

    latent_torch.py FOLDER PART      unet:32, vae:32 (sides in latent pixels), text:77 (tokens)

Answers each line on standard input by so many runs and prints the seconds that they took.
"""
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

folder, part = sys.argv[1:]
name, side = part.split(":")
side = int(side)
torch.set_num_threads(2)
load = dict(torch_dtype=torch.float32)
if name == "unet":
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **load).eval()
    x = torch.randn(1, unet.config.in_channels, side, side)
    text = torch.randn(1, 77, unet.config.cross_attention_dim)
    run = lambda: unet(x, 500, encoder_hidden_states=text).sample
elif name == "vae":
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **load).eval()
    x = torch.randn(1, vae.config.latent_channels, side, side)
    run = lambda: vae.decode(x).sample
else:
    encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", **load).eval()
    tokens = torch.randint(0, 49000, (1, side))
    run = lambda: encoder(tokens).last_hidden_state

print(f"PyTorch {torch.__version__}, CPU, {torch.get_num_threads()} threads", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    with torch.inference_mode():
        for _ in range(int(line)):
            run()
    print(time.perf_counter() - start, flush=True)
