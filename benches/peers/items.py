"""The items of src/bench/peers/items.rs in PyTorch, with numbers out of the files that `cargo bench --bench peers -- write` makes.

Feature maps are [n, c, h, w], attention's operands [n, heads, rows, size].
"""
import json
import pathlib

import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from diffusers import UNet2DModel


class Matmul(torch.nn.Module):
    inputs = ["a", "b"]

    def forward(self, a, b):
        return a @ b


class Attention(torch.nn.Module):
    inputs = ["q", "k", "v"]

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class SpelledAttention(torch.nn.Module):
    """The same in operators that ONNX had before attention."""

    def forward(self, q, k, v):
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


class Softmax(torch.nn.Module):
    def forward(self, x):
        return x.softmax(-1)


class Denoiser(torch.nn.Module):
    """A UNet at the timestep of src/bench/workloads/published.rs."""

    prefix = "unet."

    def __init__(self, config):
        super().__init__()
        self.unet = UNet2DModel.from_config(config)

    def forward(self, x):
        return self.unet(x, 421).sample


def conv(c_in, c_out, kernel, groups=1):
    return lambda: torch.nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups)


class GroupNorm(torch.nn.Module):
    prefix = "norm."

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.GroupNorm(32, 320)

    def forward(self, x):
        return F.silu(self.norm(x))


MAKE = {
    "matmul-512": Matmul,
    "matmul-1024": Matmul,
    "linear-1024": lambda: torch.nn.Linear(1024, 1024),
    "conv3-64": conv(64, 64, 3),
    "conv3-128": conv(128, 128, 3),
    "conv3-320": conv(320, 320, 3),
    "conv3-512": conv(512, 512, 3),
    "depthwise-144": conv(144, 144, 3, 144),
    "conv1-256": conv(256, 64, 1),
    "groupnorm-320": GroupNorm,
    "attention-1024": Attention,
    "softmax-1024": Softmax,
    "resnet50": torchvision.models.resnet50,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "ddpm": Denoiser,
}


def load(folder, item):
    """The module with its weights, and its inputs by their names."""
    folder = pathlib.Path(folder)
    tensors = safetensors.torch.load_file(folder / f"{item}.safetensors")
    configured = [json.loads((folder / f"{item}.json").read_text())] if MAKE[item] is Denoiser else []
    module = MAKE[item](*configured).eval()
    names, prefix = getattr(module, "inputs", ["x"]), getattr(module, "prefix", "")
    weights = {prefix + k: v for k, v in tensors.items() if k not in names}
    missing, unexpected = module.load_state_dict(weights, strict=False)
    # Counters of batches are not written.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{item}: weights {missing} are missing, {unexpected} are not the module's")
    return module.requires_grad_(False), {name: tensors[name] for name in names}
