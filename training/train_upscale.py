"""Train the x2 super-resolution network; report the PSNR on photographs that it has not seen, beside bicubic.

    python train_upscale.py --minutes 8 --out runs/upscale
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from photographs import load, psnr, sharp, tensor


class Upscale(nn.Module):
    """Residual blocks at the low resolution, sub-pixel convolution, added to the bilinear enlargement."""

    def __init__(self, width=40, blocks=3):
        super().__init__()
        self.head = nn.Conv2d(3, width, 5, 1, 2)
        self.blocks = nn.ModuleList(nn.ModuleDict(dict(a=nn.Conv2d(width, width, 3, 1, 1), b=nn.Conv2d(width, width, 3, 1, 1))) for _ in range(blocks))
        self.tail = nn.Conv2d(width, 12, 3, 1, 1)

    def forward(self, x):
        h = self.head(x).relu()
        for block in self.blocks:
            h = h + block["b"](block["a"](h).relu())
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) + F.pixel_shuffle(self.tail(h), 2)


def halved(im):
    """Low and high resolution of a picture: bicubic, 8 bits."""
    im = im.crop((0, 0, im.width // 2 * 2, im.height // 2 * 2))
    return im.resize((im.width // 2, im.height // 2), Image.BICUBIC), im


@torch.no_grad()
def evaluate(net):
    out = {}
    for name, im in load("heldout", "measure").items():
        low, high = halved(im)
        bicubic = tensor(low.resize(high.size, Image.BICUBIC))
        out[name] = [round(psnr(v, tensor(high), 4), 2) for v in (bicubic, net(tensor(low)[None])[0])]
    out["mean gain"] = round(float(np.mean([b - a for a, b in out.values()])), 2)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", default="runs/upscale")
    p.add_argument("--minutes", type=float, default=8)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--crop", type=int, default=24, help="of the low resolution")
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--seed", type=int, default=0)
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(1)
    rng = np.random.default_rng(o.seed)
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    pairs = [tuple(map(tensor, halved(im))) for im in sharp(load("train"))]
    # Small pictures count for more than their area, so that retina and sky do not fill the batches.
    chance = np.array([a.shape[1] * a.shape[2] for a, _ in pairs]) ** 0.5
    chance /= chance.sum()
    net = Upscale()
    nn.init.zeros_(net.tail.weight), nn.init.zeros_(net.tail.bias)
    opt = torch.optim.Adam(net.parameters(), o.lr)
    start, step, losses, note = time.time(), 0, [], 60
    while (f := (time.time() - start) / (o.minutes * 60)) < 1:
        for g in opt.param_groups:
            g["lr"] = o.lr * min(1, (step + 1) / 200) * (1 - f)
        lows, highs = [], []
        for i in rng.choice(len(pairs), o.batch, p=chance):
            low, high = pairs[i]
            y, x = (rng.integers(s - o.crop + 1) for s in low.shape[1:])
            low, high = low[:, y:y + o.crop, x:x + o.crop], high[:, 2 * y:2 * (y + o.crop), 2 * x:2 * (x + o.crop)]
            turns, flip, channels = rng.integers(4), rng.integers(2), torch.from_numpy(rng.permutation(3))
            for v, to in ((low, lows), (high, highs)):
                v = v[channels].rot90(turns, (1, 2))
                to.append(v.flip(2) if flip else v)
        loss = F.l1_loss(net(torch.stack(lows)), torch.stack(highs))
        opt.zero_grad()
        loss.backward()
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
