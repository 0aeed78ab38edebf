"""Compare the denoiser of path-traced frames with a joint filter that is tuned on training scenes, and with Intel's Open Image Denoise where it is installed.

    pip install pyoidn
    python evaluate_path_denoise.py --data scenes --models ../models --sheet ../docs/path-denoise.png
"""
import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from skimage.metrics import structural_similarity
from train_path_denoise import DARKEST, PathDenoise, exposure, frame, psnr, scenes, srgb


def bundled(models):
    """The network with the weights that ship."""
    net = PathDenoise()
    net.load_state_dict({k: v.float() for k, v in load_file(Path(models) / "path-denoise" / "model.safetensors").items()})
    return net.eval().requires_grad_(False)


def joint_filter(colour, albedo, normal, near, alike, facing, bright, radius=8):
    """A joint bilateral filter of the light without the surfaces' colours: Gaussians of the distance in pixels, of albedo, of normal, and of the light's
    logarithm, whose mean over 5x5 pixels is compared.
    """
    surface = albedo + DARKEST
    light = colour / surface
    shown = light.log1p()
    # Single samples say little.
    around = F.avg_pool2d(F.pad(shown, (2, 2, 2, 2), mode="replicate"), 5, 1)
    clean_albedo, clean_normal = (F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) for x in (albedo, normal))
    guide = torch.cat([around / bright, albedo / alike, clean_albedo / alike, clean_normal / facing], 1)
    padded_guide, padded_light = (F.pad(x, (radius,) * 4, mode="replicate") for x in (guide, light.clamp(max=20)))
    h, w = colour.shape[2:]
    total, weights = torch.zeros_like(light), torch.zeros_like(light[:, :1])
    for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
        part = (..., slice(radius + dy, radius + dy + h), slice(radius + dx, radius + dx + w))
        distance = (padded_guide[part] - guide).square().sum(1, keepdim=True) + (dy * dy + dx * dx) / near ** 2
        weight = (-0.5 * distance).exp()
        total, weights = total + weight * padded_light[part], weights + weight
    return total / weights * surface


GRID = dict(bright=[0.07, 0.1, 0.15, 0.25, 0.5, 1.0], near=[1.5, 2.0, 3.0, 4.0, 6.0], alike=[0.1, 0.2, 0.4, 0.8, 2.0], facing=[0.1, 0.25, 0.5, 1.0])


def tuned(data, samples):
    """The filter's best setting on these scenes: one parameter after the other, twice."""
    def score(setting):
        key = tuple(setting.values())
        if key not in seen:
            rows = []
            for noisy, target in data:
                k = exposure(target, 0.35)
                rows.append(psnr(joint_filter(*frame(noisy, 0, samples, k), **setting)[0], target * k))
            seen[key] = float(np.mean(rows))
        return seen[key]

    seen, best = {}, {name: values[1] for name, values in GRID.items()}
    for name in list(GRID) * 2:
        best = max((best | {name: value} for value in GRID[name]), key=score)
    return best


def oidn():
    """Quality -> denoiser; empty where the package is missing."""
    try:
        import pyoidn
    except ImportError:
        return {}

    def run(quality):
        def f(*x):
            colour, albedo, normal = (np.ascontiguousarray(v[0].permute(1, 2, 0).numpy()) for v in x)
            out = pyoidn.denoise(colour, albedo=albedo, normal=normal, hdr=True, quality=quality)
            return torch.from_numpy(np.array(out)).permute(2, 0, 1)[None]
        return f

    return {f"OIDN, {quality}": run(quality) for quality in ("fast", "balanced", "high")}


def ssim(a, b):
    a, b = (srgb(x).permute(1, 2, 0).numpy() for x in (a, b))
    return structural_similarity(a, b, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", type=Path, default="scenes")
    p.add_argument("--models", default="../models")
    p.add_argument("--tune-on", type=int, default=8, help="training scenes that the filter is tuned on")
    p.add_argument("--sheet", help="PNG: noisy, filtered, network, OIDN, reference of one scene of each family")
    p.add_argument("--filter", help="the filter's settings for 1, 2 and 4 samples as a JSON list, instead of tuning it")
    p.add_argument("--sheet-samples", type=int, default=2)
    o = p.parse_args()
    torch.set_num_threads(2)
    net, heldout = bundled(o.models), scenes(o.data / "heldout")
    train = list(scenes(o.data / "train").values())
    train = train[::max(1, len(train) // o.tune_on)]
    settings = json.loads(o.filter) if o.filter else [tuned(train, samples) for samples in (1, 2, 4)]
    for samples, setting in zip((1, 2, 4), settings):
        ways = {"noisy": lambda *x: x[0], "joint filter": lambda *x: joint_filter(*x, **setting), "path-denoise": net} | oidn()
        found = {name: [] for name in ways}
        shown = []
        for scene, (noisy, target) in heldout.items():
            k = exposure(target, 0.35)
            x = frame(noisy, 0, samples, k)
            row = []
            for name, way in ways.items():
                y = way(*x)[0]
                found[name].append((scene.split("-")[0], psnr(y, target * k), ssim(y, target * k)))
                row.append(y)
            if scene.endswith("0"):
                shown.append(torch.cat([srgb(v) for v in row[:4] + row[-1:] * (len(row) > 4) + [target * k]], 2))
        print(f"{samples} samples a pixel, {len(heldout)} scenes; filter {setting}")
        for name, rows in found.items():
            of = {family: np.mean([r[1] for r in rows if r[0] == family]) for family in dict.fromkeys(r[0] for r in rows)}
            print(f"  {name:16} {np.mean([r[1] for r in rows]):6.2f} dB, SSIM {np.mean([r[2] for r in rows]):.3f};", ", ".join(f"{f} {v:.2f}" for f, v in of.items()), flush=True)
        if o.sheet and samples == o.sheet_samples:
            sheet = (torch.cat(shown, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(sheet).save(o.sheet, optimize=True)


if __name__ == "__main__":
    main()
