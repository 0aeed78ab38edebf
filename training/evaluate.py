"""Measure the exported models: the classifier on held-out families, the UNet by how its samples are read and how near they are to training pictures.

    python evaluate.py --data glyphs.npz --models ../models --per-class 20 --sampler dpm --guidance 1.5 --sheet samples.png
"""
import argparse
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from model import LABELS, UNCONDITIONAL, LettersClassifier, load, sheet
from safetensors.torch import load_file
from train_classifier import accuracy, paired


def load_unet(folder):
    net = UNet2DModel.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval().requires_grad_(False)
    return net, DDPMScheduler.from_pretrained(folder).config


def load_classifier(folder):
    net = LettersClassifier().eval().requires_grad_(False)
    missing = net.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()}, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in k for k in missing.missing_keys)
    return net


def make_scheduler(kind, config):
    if kind == "ddim":
        return DDIMScheduler.from_config(config, clip_sample=False, timestep_spacing="trailing")
    return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", timestep_spacing="trailing")


@torch.no_grad()
def generate(net, config, labels, kind, steps, guidance, seed):
    x = torch.randn(len(labels), 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    out = []
    for x, y in zip(x.split(72), labels.split(72)):
        s = make_scheduler(kind, config)
        s.set_timesteps(steps)
        for t in s.timesteps:
            if guidance == 1:
                v = net(x, t, class_labels=y).sample
            else:
                c, u = net(torch.cat([x, x]), t, class_labels=torch.cat([y, torch.full_like(y, UNCONDITIONAL)])).sample.chunk(2)
                v = u + guidance * (c - u)
            x = s.step(v, t, x).prev_sample
        out.append(x)
    return torch.cat(out).clamp(-1, 1)


def nearest(a, ya, b, yb):
    """Distance (root mean square, values -1..1) of each picture of a to the nearest of its class in b, over shifts of up to one pixel."""
    d = torch.full((len(a),), 9.0)
    for c in ya.unique():
        i, j = ya == c, yb == c
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                d[i] = torch.minimum(d[i], torch.cdist(a[i].roll((dy, dx), (2, 3)).flatten(1), b[j].flatten(1)).min(1).values / 32)
    return d


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", default="glyphs.npz")
    p.add_argument("--models", default="../models", type=Path)
    p.add_argument("--sampler", default="dpm", help="dpm (DPM++ 2M) or ddim; several with commas")
    p.add_argument("--guidance", default="1.5", help="several with commas")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--per-class", type=int, default=20)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--sheet", help="PNG of the last setting's samples")
    o = p.parse_args()
    torch.set_num_threads(1)
    X, Y, _ = load(o.data, False)
    Xh, Yh, _ = load(o.data, True)
    classifier = load_classifier(o.models / "letters-classifier")
    strict, pair, _ = accuracy(classifier, Xh, Yh)
    print(f"classifier, {len(Xh)} held-out pictures: {strict:.4f} strict, {pair:.4f} with O/0 and I/1 as pairs", flush=True)
    dh = nearest(Xh, Yh, X, Y)
    quant = lambda d: " ".join(f"{q * 100:g} %: {d.quantile(q):.3f}" for q in (0.01, 0.05, 0.25, 0.5, 0.75))
    print("nearest training picture, held-out pictures: ", quant(dh))
    net, config = load_unet(o.models / "letters-unet")
    y = torch.arange(len(LABELS)).repeat(o.per_class)
    for kind in o.sampler.split(","):
        for g in map(float, o.guidance.split(",")):
            x = generate(net, config, y, kind, o.steps, g, o.seed)
            strict, pair, read = accuracy(classifier, x, y)
            print(f"{kind}, {o.steps} steps, guidance {g:g}, {len(y)} samples: read as asked {strict:.4f} strict, {pair:.4f} with pairs", flush=True)
            wrong = paired(read) != paired(y)
            print("  misread:", " ".join(f"{LABELS[a]}>{LABELS[b]}" for a, b in zip(y[wrong], read[wrong])))
            d = nearest(x, y, X, Y)
            print("  nearest training picture:", quant(d), f"; nearer than the 1 % quantile of held-out pictures: {(d < dh.quantile(0.01)).float().mean():.4f}", flush=True)
    if o.sheet:
        sheet(x, len(LABELS), o.sheet, 1)


if __name__ == "__main__":
    main()
