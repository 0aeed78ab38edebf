"""Train the letters classifier on the training families; report accuracy on the held-out ones.

    python train_classifier.py --data glyphs.npz --minutes 4 --out runs/classifier
"""
import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import LABELS, LettersClassifier, affine, load

PAIRS = {LABELS.index("0"): LABELS.index("O"), LABELS.index("1"): LABELS.index("I")}  # O/0 and I/1 are often the same picture


def paired(y):
    y = y.clone()
    for a, b in PAIRS.items():
        y[y == a] = b
    return y


def augment(x):
    """Affine map, blur, contrast and noise, as a drawn or generated character may have."""
    n = len(x)
    x = affine(x, 9, 0.12, 0.15, 0.12, 0.12)
    k = torch.tensor([1.0, 2.0, 1.0])
    k = (k[:, None] * k / k.sum() ** 2).view(1, 1, 3, 3)
    soft = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), k)
    x = torch.lerp(x, soft, torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.4))
    x = (x + 1) * (0.5 + 0.7 * torch.rand(n, 1, 1, 1)).clamp(max=1) - 1
    return (x + torch.randn_like(x) * torch.rand(n, 1, 1, 1) * 0.25 * (torch.rand(n, 1, 1, 1) < 0.4)).clamp(-1, 1)


@torch.no_grad()
def accuracy(net, X, Y):
    net.eval()
    p = torch.cat([net(b).argmax(1) for b in X.split(256)])
    return (p == Y).float().mean().item(), (paired(p) == paired(Y)).float().mean().item(), p


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", default="glyphs.npz")
    p.add_argument("--out", default="runs/classifier")
    p.add_argument("--minutes", type=float, default=4)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--seed", type=int, default=0)
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(1)
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    X, Y, _ = load(o.data, False)
    Xh, Yh, _ = load(o.data, True)
    net = LettersClassifier()
    opt = torch.optim.AdamW(net.parameters(), o.lr, weight_decay=0.02)
    start, step, losses, note = time.time(), 0, [], 30
    while (f := (time.time() - start) / (o.minutes * 60)) < 1:
        for g in opt.param_groups:
            g["lr"] = o.lr * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * f))
        net.train()
        i = torch.randint(len(X), (o.batch,))
        loss = F.cross_entropy(net(augment(X[i])), Y[i], label_smoothing=0.05)
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        losses.append(loss.item())
        if time.time() - start > note:
            note += 30
            print(f"{time.time() - start:4.0f} s, step {step}, loss {np.mean(losses[-200:]):.3f}, held out {accuracy(net, Xh, Yh)[:2]}", flush=True)
            torch.save(net.state_dict(), out / "net.pt")
    torch.save(net.state_dict(), out / "net.pt")
    strict, pair, _ = accuracy(net, Xh, Yh)
    result = dict(parameters=sum(q.numel() for q in net.parameters()), steps=step, seconds=round(time.time() - start), train=len(X), heldout=len(Xh), strict=strict, paired=pair)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    print(result)


if __name__ == "__main__":
    main()
