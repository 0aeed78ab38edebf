"""Train the U-Net that tells capitals and digits from the background; report its IoU on scenes of held-out fonts and photographs.

    python train_segmenter.py --scenes scenes --minutes 12 --out runs/segmenter
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

CLASSES = ("background", "character")


class DoubleConv(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
            nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(i, o))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(i, o, 2, 2), DoubleConv(2 * o, o)

    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(x)], 1))


class Out(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.conv = nn.Conv2d(i, o, 1)

    def forward(self, x):
        return self.conv(x)


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with the parameter names of milesial/Pytorch-UNet, narrow. Sides must be multiples of 16."""

    def __init__(self, widths=(8, 16, 24, 32, 48), classes=len(CLASSES)):
        super().__init__()
        a, b, c, d, e = widths
        self.inc = DoubleConv(3, a)
        self.down1, self.down2, self.down3, self.down4 = Down(a, b), Down(b, c), Down(c, d), Down(d, e)
        self.up1, self.up2, self.up3, self.up4 = Up(e, d), Up(d, c), Up(c, b), Up(b, a)
        self.outc = Out(a, classes)

    def forward(self, x):
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        h = self.up1(self.down4(x4), x4)
        return self.outc(self.up4(self.up3(self.up2(h, x3), x2), x1))


@torch.no_grad()
def evaluate(net, folder, count=400):
    net.eval()
    x, truth = (np.load(Path(folder) / f"heldout-{n}.npy", mmap_mode="r")[:count] for n in ("x", "classes"))
    confusion = np.zeros((2, 2), int)
    for k in range(len(x)):
        p = net(torch.from_numpy(x[k].copy()).permute(2, 0, 1)[None].float() / 255)[0].argmax(0).numpy()
        confusion += np.bincount(2 * p.flatten() + (truth[k] > 0).flatten(), minlength=4).reshape(2, 2)
    iou = [confusion[c, c] / (confusion[c].sum() + confusion[:, c].sum() - confusion[c, c]) for c in range(2)]
    return {"IoU " + n: round(float(v), 4) for n, v in zip(CLASSES, iou)} | {"mean IoU": round(float(np.mean(iou)), 4)}


def batch(rng, x, classes, n, crop):
    pictures, truth = [], []
    for k in rng.integers(len(x), size=n):
        left, top = rng.integers(x.shape[2] - crop + 1), rng.integers(x.shape[1] - crop + 1)
        v = torch.from_numpy(x[k, top:top + crop, left:left + crop][..., rng.permutation(3)].copy()).permute(2, 0, 1).float() / 255
        if rng.random() < 0.3:
            v = 1 - v
        if rng.random() < 0.15:
            v = v.mean(0, keepdim=True).expand(3, -1, -1)
        v = v * rng.uniform(0.6, 1.1) + rng.uniform(-0.1, 0.1)
        if rng.random() < 0.3:
            v = v + torch.randn_like(v) * rng.uniform(0, 0.06)
        pictures.append(v.clamp(0, 1)), truth.append(torch.from_numpy((classes[k, top:top + crop, left:left + crop] > 0).astype(np.int64)))
    return torch.stack(pictures), torch.stack(truth)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--scenes", default="scenes", type=Path)
    p.add_argument("--out", default="runs/segmenter")
    p.add_argument("--start", help="net.pt to go on from")
    p.add_argument("--minutes", type=float, default=12)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--crop", type=int, default=160)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--seed", type=int, default=0)
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(1)
    rng = np.random.default_rng(o.seed)
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    data = [np.load(o.scenes / f"train-{n}.npy", mmap_mode="r") for n in ("x", "classes")]
    net = UNet().to(memory_format=torch.channels_last)  # a third faster on a CPU
    if o.start:
        net.load_state_dict(torch.load(o.start))
    opt = torch.optim.AdamW(net.parameters(), o.lr, weight_decay=0.01)
    weight = torch.tensor([0.4, 1.0])
    start, step, history, note = time.time(), 0, [], 60
    while (f := (time.time() - start) / (o.minutes * 60)) < 1:
        for g in opt.param_groups:
            g["lr"] = o.lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * f))
        net.train()
        x, truth = batch(rng, *data, o.batch, o.crop)
        y = net(x.contiguous(memory_format=torch.channels_last))
        # Cross-entropy, and soft Jaccard over the batch, which is what is measured.
        p, t = y.softmax(1), F.one_hot(truth, len(CLASSES)).permute(0, 3, 1, 2).float()
        both, either = (p * t).sum((0, 2, 3)), (p + t - p * t).sum((0, 2, 3))
        loss = F.cross_entropy(y, truth, weight) + 0.5 * (1 - (both + 1) / (either + 1)).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        history.append(loss.item())
        if time.time() - start > note:
            note += 120
            print(f"{time.time() - start:4.0f} s, step {step}, loss {np.mean(history[-200:]):.4f}, {evaluate(net, o.scenes, 40)}", flush=True)
            torch.save(net.state_dict(), out / "net.pt")
    torch.save(net.state_dict(), out / "net.pt")
    result = dict(parameters=sum(q.numel() for q in net.parameters()), steps=step, seconds=round(time.time() - start), heldout=evaluate(net, o.scenes))
    (out / "result.json").write_text(json.dumps(result, indent=1))
    print(result)


if __name__ == "__main__":
    main()
