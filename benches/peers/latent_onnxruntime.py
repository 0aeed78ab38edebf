"""A part of latent diffusion in onnxruntime, on the CPU with two threads.

    latent_onnxruntime.py ONNX FOLDER PART              unet:32, vae:32 (sides in latent pixels), text:77 (tokens)
    latent_onnxruntime.py ONNX FOLDER PART --profile    where a run's time goes, by operator

ONNX is a folder for the exported networks, which are made if they are not there (3.5 GB for a UNet; a process of its own
makes them, so that PyTorch is gone when runs are timed). Answers each line on standard input by so many runs and prints the
seconds that they took.
"""
import subprocess
import sys
import time
from pathlib import Path

folder, model, part = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
name, side = part.split(":")
side = int(side)
path = folder / f"{name}-{side}" / "model.onnx"


def export():
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    class Only(torch.nn.Module):
        def __init__(self, network, run):
            super().__init__()
            self.network, self.run = network, run

        def forward(self, *inputs):
            return self.run(self.network, *inputs)

    load = dict(torch_dtype=torch.float32)
    if name == "unet":
        unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", **load).eval()
        network = Only(unet, lambda unet, x, text: unet(x, 500, encoder_hidden_states=text).sample)
        inputs = (torch.randn(1, unet.config.in_channels, side, side), torch.randn(1, 77, unet.config.cross_attention_dim))
    elif name == "vae":
        vae = AutoencoderKL.from_pretrained(model, subfolder="vae", **load).eval()
        network = Only(vae, lambda vae, x: vae.decode(x).sample)
        inputs = (torch.randn(1, vae.config.latent_channels, side, side),)
    else:
        encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", **load).eval()
        network = Only(encoder, lambda encoder, tokens: encoder(tokens).last_hidden_state)
        inputs = (torch.randint(0, 49000, (1, side)),)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name("whole.onnx")
    with torch.inference_mode():
        torch.onnx.export(network, inputs, whole, opset_version=18, dynamo=True, external_data=True)
    # Last, as it says that the network is whole; the name of the file with the weights is in it.
    whole.rename(path)


if "--export" in sys.argv:
    export()
    sys.exit()
if not path.exists():
    subprocess.run([sys.executable, *sys.argv, "--export"], check=True, stdout=sys.stderr)

import numpy as np
import onnxruntime

from onnxruntime_profile import profiled, show

options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
if "--profile" in sys.argv:
    options = profiled(options)
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
rng = np.random.default_rng(7)
inputs = {
    i.name: rng.integers(0, 49000, i.shape) if i.type == "tensor(int64)" else rng.standard_normal(i.shape, np.float32)
    for i in session.get_inputs()
}
if "--profile" in sys.argv:
    show(session, inputs)
    sys.exit()
print(f"onnxruntime {onnxruntime.__version__}, CPU, 2 threads", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        session.run(None, inputs)
    print(time.perf_counter() - start, flush=True)
