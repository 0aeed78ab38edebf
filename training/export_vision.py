"""Write the trained vision networks in f16 as bundled models, and small fixtures computed by PyTorch in f32 from those weights.

    python export_vision.py --runs runs --scenes scenes --models ../models --fixtures ../tests/fixtures
"""
import argparse
from pathlib import Path

import numpy as np
import torch
import train_denoise
import train_detector
import train_segmenter
import train_upscale
from photographs import load, tensor
from safetensors.torch import load_file, save_file
from train_denoise import Denoise, eight_bits
from train_detector import Conv, Detector
from train_segmenter import UNet
from train_style import TransformerNet
from train_upscale import Upscale, halved

NETWORKS = {"upscale-x2": ("upscale", Upscale), "denoise": ("denoise", Denoise), "letters-detector": ("detector", Detector),
            "letters-segmenter": ("segmenter", UNet), "style-engraving": ("style", TransformerNet)}
EVALUATE = {"upscale-x2": lambda net, _: train_upscale.evaluate(net), "denoise": lambda net, _: train_denoise.evaluate(net),
            "letters-detector": train_detector.evaluate, "letters-segmenter": train_segmenter.evaluate}


def folded(net):
    """State of a network in which each `Conv` is one convolution: NAME.0.weight and the norm after it -> NAME.weight, NAME.bias."""
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    for name, part in net.named_modules():
        if isinstance(part, Conv):
            conv, norm = part[0], part[1]
            k = norm.weight / (norm.running_var + norm.eps).sqrt()
            for key in [key for key in state if key.startswith(name + ".")]:
                del state[key]
            state[name + ".weight"] = conv.weight * k[:, None, None, None]
            state[name + ".bias"] = norm.bias - norm.running_mean * k
    if isinstance(net, TransformerNet):
        for key in ("deconv3.conv2d.weight", "deconv3.conv2d.bias"):
            state[key] = state[key] * 255
    return state


def unfolded(net, state):
    """Loads `folded` weights: batch norms that do nothing but add the bias."""
    own = {}
    for name, part in net.named_modules():
        if isinstance(part, Conv):
            own[name + ".0.weight"], own[name + ".1.bias"] = state[name + ".weight"], state[name + ".bias"]
            n = len(own[name + ".1.bias"])
            own |= {name + ".1.weight": torch.ones(n), name + ".1.running_mean": torch.zeros(n), name + ".1.running_var": torch.full((n,), 1 - part[1].eps)}
    own |= {k: v for k, v in state.items() if k in net.state_dict()}
    missing = net.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in k for k in missing.missing_keys), missing
    return net


def bundled(models, name):
    """A network with the weights that ship."""
    state = {k: v.float() for k, v in load_file(Path(models) / name / "model.safetensors").items()}
    return unfolded(NETWORKS[name][1](), state).eval().requires_grad_(False)


def inputs(scenes):
    """Small pictures for the fixtures, of odd proportions where the network allows it."""
    coffee = load("heldout")["coffee"]
    low = tensor(halved(coffee)[0])[:, 60:97, 100:151]
    clean = tensor(coffee)[:, 160:208, 240:304]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 25 / 255
    scene = torch.from_numpy(np.load(Path(scenes) / "heldout-x.npy", mmap_mode="r")[3].copy()).permute(2, 0, 1).float() / 255
    return {"upscale-x2": low, "denoise": eight_bits(clean + noise), "letters-detector": scene[:, 64:160, 64:192], "letters-segmenter": scene[:, 64:112, 64:144],
            "style-engraving": clean[:, :44, :60]}  # all from 0 to 1


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--runs", type=Path, help="folder of the training scripts' results; without it only the fixtures are written")
    p.add_argument("--scenes", default="scenes")
    p.add_argument("--models", default="../models", type=Path)
    p.add_argument("--fixtures", default="../tests/fixtures", type=Path)
    p.add_argument("--evaluate", action="store_true", help="print the held-out figures of the weights that ship")
    p.add_argument("--only", nargs="*", default=list(NETWORKS))
    o = p.parse_args()
    o.fixtures.mkdir(parents=True, exist_ok=True)
    for name in o.only:
        run, network = NETWORKS[name]
        if o.runs:
            net = network()
            net.load_state_dict(torch.load(o.runs / run / "net.pt"))
            (o.models / name).mkdir(parents=True, exist_ok=True)
            save_file({k: v.detach().half().contiguous() for k, v in folded(net.eval()).items()}, o.models / name / "model.safetensors", {"format": "pt"})
            (o.models / name / "model.safetensors").chmod(0o644)
        net, x = bundled(o.models, name), inputs(o.scenes)[name][None]
        y = net(x * 255).clamp(0, 255) / 255 if network is TransformerNet else net(x)
        y = {"boxes": y[0], "scores": y[1]} if isinstance(y, tuple) else {"output": y}
        file = o.fixtures / (name.replace("-", "_") + ".safetensors")
        save_file({"input": x.contiguous()} | {k: v.contiguous() for k, v in y.items()}, file)
        file.chmod(0o644)
        print(name, sum(q.numel() for q in net.parameters()), "parameters,", (o.models / name / "model.safetensors").stat().st_size, "bytes; fixture", file.stat().st_size)
        if o.evaluate and name in EVALUATE:
            print(EVALUATE[name](net, o.scenes))


if __name__ == "__main__":
    main()
