"""Train a feed-forward style network that redraws a photograph as an engraving: lines whose width says the tone.

    python train_style.py --minutes 12 --out runs/style

No published weights and no work of art go in. The style is a row of hatched swatches, one for each tone, drawn by `swatch`; the features whose Gram
matrices must agree are a bank of Gabor filters, and they are compared within each band of tones (Gatys et al. 2017, spatial control).
"""
import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from photographs import load, sharp, tensor
from PIL import Image

TONES = (0.08, 0.25, 0.42, 0.58, 0.75, 0.92)
INK, PAPER = torch.tensor([38.0, 34.0, 46.0]) / 255, torch.tensor([246.0, 238.0, 222.0]) / 255


class ConvLayer(nn.Module):
    def __init__(self, i, o, kernel, stride=1, upsample=None):
        super().__init__()
        self.upsample, self.pad = upsample, kernel // 2
        self.conv2d = nn.Conv2d(i, o, kernel, stride)

    def forward(self, x):
        if self.upsample:
            x = F.interpolate(x, scale_factor=self.upsample)
        return self.conv2d(F.pad(x, (self.pad,) * 4, mode="reflect"))


class ResidualBlock(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.conv1, self.in1 = ConvLayer(w, w, 3), nn.InstanceNorm2d(w, affine=True)
        self.conv2, self.in2 = ConvLayer(w, w, 3), nn.InstanceNorm2d(w, affine=True)

    def forward(self, x):
        return x + self.in2(self.conv2(self.in1(self.conv1(x)).relu()))


class TransformerNet(nn.Module):
    """Johnson et al. 2016 with instance norm and the names of PyTorch's fast_neural_style example, narrow. From 0..255 to 0..255 (not clamped)."""

    def __init__(self, widths=(16, 24, 32), scale=1):
        super().__init__()
        a, b, c = widths
        self.scale = scale  # of the last layer while training, whose weights would be too large otherwise
        self.conv1, self.in1 = ConvLayer(3, a, 9), nn.InstanceNorm2d(a, affine=True)
        self.conv2, self.in2 = ConvLayer(a, b, 3, 2), nn.InstanceNorm2d(b, affine=True)
        self.conv3, self.in3 = ConvLayer(b, c, 3, 2), nn.InstanceNorm2d(c, affine=True)
        self.res1, self.res2, self.res3, self.res4, self.res5 = (ResidualBlock(c) for _ in range(5))
        self.deconv1, self.in4 = ConvLayer(c, b, 3, 1, 2), nn.InstanceNorm2d(b, affine=True)
        self.deconv2, self.in5 = ConvLayer(b, a, 3, 1, 2), nn.InstanceNorm2d(a, affine=True)
        self.deconv3 = ConvLayer(a, 3, 9)

    def forward(self, x):
        y = self.in1(self.conv1(x)).relu()
        y = self.in2(self.conv2(y)).relu()
        y = self.in3(self.conv3(y)).relu()
        y = self.res5(self.res4(self.res3(self.res2(self.res1(y)))))
        y = self.in4(self.deconv1(y)).relu()
        y = self.in5(self.deconv2(y)).relu()
        return self.deconv3(y) * self.scale


def swatch(tone, size=256, period=6.0, seed=0):
    """Hatching whose mean is `tone` (0 ink, 1 paper): lines one way, and across them in the darks."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size * 2) / 2, torch.arange(size * 2) / 2, indexing="ij")

    def soft(n):
        return F.interpolate(torch.randn(1, 1, n, n, generator=draw), (size * 2, size * 2), mode="bicubic", align_corners=True)[0, 0]

    def lines(angle, share):
        t = math.radians(angle)
        phase = (x * math.cos(t) + y * math.sin(t)) / period + 0.12 * soft(6)
        width = share * (1 + 0.1 * soft(40))
        return ((phase % 1 - 0.5).abs() * 2 > width).float()

    dark = 1 - tone
    a = lines(50, min(dark, 0.45 + 0.35 * dark))
    if dark > 0.5:
        a = a * lines(-40, max(0.0, 1 - tone / a.mean().item()))
    return F.avg_pool2d(a[None, None], 2)


def gabor_bank(size=11):
    """[filters,1,size,size]: eight directions, four wavelengths, both phases; no answer to a constant."""
    r = torch.arange(size) - size // 2
    y, x = torch.meshgrid(r, r, indexing="ij")
    bank = []
    for wavelength in (2.8, 4.0, 6.0, 9.0):
        for k in range(8):
            t = math.pi * k / 8
            along = x * math.cos(t) + y * math.sin(t)
            window = torch.exp(-(x ** 2 + y ** 2) / (2 * (0.45 * wavelength) ** 2))
            for phase in (0, math.pi / 2):
                f = window * torch.cos(2 * math.pi * along / wavelength + phase)
                f = f - window * f.sum() / window.sum()
                bank.append(f / f.abs().sum())
    return torch.stack(bank)[:, None]


BANK = gabor_bank()


def features(v):
    """Of a picture's ink [n,1,h,w]: answers to the bank, their negatives left out, and how dark the pixel is in steps."""
    answers = F.conv2d(F.pad(v, (5,) * 4, mode="reflect"), BANK) * 6
    steps = torch.cat([(v - k).relu() * 2 for k in (-0.1, 0.2, 0.5, 0.8)], 1)
    return torch.cat([answers.relu(), steps], 1)


def gram(f, mask):
    """[c,c] within a soft mask, over the batch."""
    m = mask.flatten()
    inside = m.nonzero()[:, 0]
    f, m = f.transpose(0, 1).flatten(1)[:, inside], m[inside]
    return (f * m) @ f.T / m.sum()


def blur(v, sigma):
    r = math.ceil(2.5 * sigma)
    k = torch.exp(-torch.arange(-r, r + 1) ** 2 / (2 * sigma ** 2))
    k = k / k.sum()
    c = v.shape[1]
    v = F.conv2d(F.pad(v, (r, r, 0, 0), mode="reflect"), k.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)
    return F.conv2d(F.pad(v, (0, 0, r, r), mode="reflect"), k.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)


def luma(x):
    return x[:, :1] * 0.299 + x[:, 1:2] * 0.587 + x[:, 2:] * 0.114


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", default="runs/style")
    p.add_argument("--start", help="net.pt to go on from")
    p.add_argument("--minutes", type=float, default=12)
    p.add_argument("--batch", type=int, default=3)
    p.add_argument("--crop", type=int, default=128)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--style", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=0)
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(1)
    rng = np.random.default_rng(o.seed)
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [v for v in map(tensor, sharp(load("train"), (1, 0.71, 0.5))) if min(v.shape[1:]) >= o.crop]
    with torch.no_grad():
        swatches = [swatch(t) for t in TONES]
        Image.fromarray((torch.cat([s[0, 0, :128] for s in swatches], 1) * 255).byte().numpy()).save(out / "swatches.png")
        wanted = [gram(features(s), torch.ones_like(s)) for s in swatches]
    net = TransformerNet(scale=255).to(memory_format=torch.channels_last)  # faster on a CPU
    if o.start:
        net.load_state_dict(torch.load(o.start))
    opt = torch.optim.Adam(net.parameters(), o.lr)
    start, step, history, note = time.time(), 0, [], 60
    while (f := (time.time() - start) / (o.minutes * 60)) < 1:
        for g in opt.param_groups:
            g["lr"] = o.lr * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * f))
        x = []
        for i in rng.integers(len(pictures), size=o.batch):
            v = pictures[i]
            top, left = (rng.integers(s - o.crop + 1) for s in v.shape[1:])
            v = v[torch.from_numpy(rng.permutation(3)), top:top + o.crop, left:left + o.crop]
            x.append((v.flip(2) if rng.integers(2) else v) ** rng.uniform(0.5, 1.6))
        x = torch.stack(x)
        y = net((x * 255).contiguous(memory_format=torch.channels_last)) / 255
        # The picture is ink on paper: how far each pixel is from ink to paper, and how far off that line.
        line = (PAPER - INK).view(1, 3, 1, 1)
        v = ((y - INK.view(1, 3, 1, 1)) * line).sum(1, keepdim=True) / (line ** 2).sum()
        off = (y - INK.view(1, 3, 1, 1) - v * line).square().mean()
        tone = luma(x)
        # Instance norms lose a picture's brightness and contrast, so that what is asked for has standard ones.
        soft = blur(tone, 2)
        spread = tone.std((1, 2, 3), keepdim=True).clamp(min=0.06)
        goal = (0.55 + 0.27 * (soft - tone.mean((1, 2, 3), keepdim=True)) / spread).clamp(TONES[0], TONES[-1])
        answers, style = features(v), 0
        position = (goal - TONES[0]) / (TONES[-1] - TONES[0]) * (len(TONES) - 1)
        for k, w in enumerate(wanted):
            mask = (1 - (position - k).abs()).clamp(min=0)
            share = mask.mean()
            if share > 0.01:
                style = style + share.clamp(max=0.3) * (gram(answers, mask) - w).square().sum() / w.square().sum()
        place = (blur(v, 3) - blur(goal, 3)).square().mean()
        detail = (blur(v, 1.2) - blur(v, 4) - 0.2 / spread * (blur(tone, 1.2) - blur(tone, 4))).square().mean()
        outside = ((v - 1).relu() + (-v).relu()).square().mean()
        loss = o.style * style + 30 * place + 4 * detail + 10 * off + 2 * outside
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5)
        opt.step()
        step += 1
        history.append([q.item() for q in (style, place, detail, off)])
        if time.time() - start > note:
            note += 60
            print(f"{time.time() - start:4.0f} s, step {step}, style, place, detail, off {np.mean(history[-100:], 0).round(4)}", flush=True)
            torch.save(net.state_dict(), out / "net.pt")
    state = net.state_dict()
    torch.save(state, out / "net.pt")
    result = dict(parameters=sum(q.numel() for q in net.parameters()), steps=step, seconds=round(time.time() - start), last=np.mean(history[-100:], 0).round(4).tolist())
    (out / "result.json").write_text(json.dumps(result, indent=1))
    print(result)


if __name__ == "__main__":
    main()
