"""Train the blind denoiser; report the PSNR on photographs that it has not seen, beside that of the noisy ones.

    python train_denoise.py --minutes 12 --out runs/denoise
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from photographs import load, psnr, sharp, tensor


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, 1, 1) for _ in "ab")

    def forward(self, x):
        return x + self.b(self.a(x).relu())


class Denoise(nn.Module):
    """A narrow DRUNet (Zhang et al. 2021) on every second pixel: it predicts the noise. Sides must be multiples of 8."""

    def __init__(self, widths=(32, 40, 40)):
        super().__init__()
        a, b, c = widths
        self.head = nn.Conv2d(12, a, 3, 1, 1)
        self.enc1, self.down1 = Residual(a), nn.Conv2d(a, b, 2, 2)
        self.enc2, self.down2 = Residual(b), nn.Conv2d(b, c, 2, 2)
        self.mid = Residual(c)
        self.up2, self.dec2 = nn.ConvTranspose2d(c, b, 2, 2), Residual(b)
        self.up1, self.dec1 = nn.ConvTranspose2d(b, a, 2, 2), Residual(a)
        self.tail = nn.Conv2d(a, 12, 3, 1, 1)

    def forward(self, x):
        h1 = self.enc1(self.head(F.pixel_unshuffle(x, 2)))
        h2 = self.enc2(self.down1(h1))
        h = self.mid(self.down2(h2))
        h = self.dec2(self.up2(h) + h2)
        h = self.dec1(self.up1(h) + h1)
        return x - F.pixel_shuffle(self.tail(h), 2)


def eight_bits(x):
    return (x * 255).round().clamp(0, 255) / 255


@torch.no_grad()
def evaluate(net, sigmas=(15, 25, 50)):
    """Picture -> sigma -> PSNR of the noisy and the restored one. Grey pictures get grey noise."""
    out, draw = {}, torch.Generator().manual_seed(0)
    for name, im in load("heldout", "measure").items():
        clean = tensor(im)
        clean = clean[:, :clean.shape[1] // 8 * 8, :clean.shape[2] // 8 * 8]
        for sigma in sigmas:
            noise = torch.randn(1 if name == "camera" else 3, *clean.shape[1:], generator=draw)
            noisy = eight_bits(clean + noise * sigma / 255)
            out.setdefault(name, {})[sigma] = [round(psnr(v, clean), 2) for v in (noisy, net(noisy[None])[0])]
    out["mean gain"] = {s: round(float(np.mean([v[s][1] - v[s][0] for v in list(out.values())])), 2) for s in sigmas}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", default="runs/denoise")
    p.add_argument("--minutes", type=float, default=12)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--crop", type=int, default=64)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--seed", type=int, default=0)
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(1)
    rng = np.random.default_rng(o.seed)
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [tensor(im) for im in sharp(load("train"))]
    grey = [bool((v[0] == v[1]).all() and (v[1] == v[2]).all()) for v in pictures]
    chance = np.array([v.shape[1] * v.shape[2] for v in pictures]) ** 0.5
    chance /= chance.sum()
    net = Denoise()
    nn.init.zeros_(net.tail.weight), nn.init.zeros_(net.tail.bias)
    opt = torch.optim.Adam(net.parameters(), o.lr)
    start, step, losses, note = time.time(), 0, [], 60
    while (f := (time.time() - start) / (o.minutes * 60)) < 1:
        for g in opt.param_groups:
            g["lr"] = o.lr * min(1, (step + 1) / 200) * (1 - f)
        clean, noise = [], []
        for i in rng.choice(len(pictures), o.batch, p=chance):
            v = pictures[i]
            y, x = (rng.integers(s - o.crop + 1) for s in v.shape[1:])
            v = v[torch.from_numpy(rng.permutation(3)), y:y + o.crop, x:x + o.crop].rot90(rng.integers(4), (1, 2))
            clean.append(v.flip(2) if rng.integers(2) else v)
            same = rng.random() < (0.7 if grey[i] else 0.1)
            if same and not grey[i]:
                clean[-1] = clean[-1].mean(0, keepdim=True).expand(3, -1, -1)
            noise.append(torch.randn(1 if same else 3, o.crop, o.crop).expand(3, -1, -1) * rng.uniform(0, 55) / 255)
        clean = torch.stack(clean)
        loss = F.l1_loss(net(eight_bits(clean + torch.stack(noise))), clean)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        step += 1
        losses.append(loss.item())
        if time.time() - start > note:
            note += 60
            print(f"{time.time() - start:4.0f} s, step {step}, loss {np.mean(losses[-500:]):.5f}, {evaluate(net)}", flush=True)
            torch.save(net.state_dict(), out / "net.pt")
    torch.save(net.state_dict(), out / "net.pt")
    result = dict(parameters=sum(q.numel() for q in net.parameters()), steps=step, seconds=round(time.time() - start), psnr=evaluate(net))
    (out / "result.json").write_text(json.dumps(result, indent=1))
    print(result)


if __name__ == "__main__":
    main()
