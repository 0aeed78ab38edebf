"""Train the class-conditional UNet (diffusers UNet2DModel, v-prediction) on the CPU. Stops by the clock; can be resumed.

    python train_diffusion.py --data glyphs.npz --minutes 60 --decay 15 --out runs/unet     # again with --resume to go on
"""
import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import LABELS, UNCONDITIONAL, affine, load, scheduler, sheet, unet


@torch.no_grad()
def sample(net, labels, steps=20, guidance=1.5, seed=0):
    """DDIM, trailing spacing, no clipping; the unconditional pass in the same batch."""
    from diffusers import DDIMScheduler
    s = DDIMScheduler.from_config(scheduler().config)
    s.set_timesteps(steps)
    x = torch.randn(len(labels), 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    for t in s.timesteps:
        c, u = net(torch.cat([x, x]), t, class_labels=torch.cat([labels, torch.full_like(labels, UNCONDITIONAL)])).sample.chunk(2)
        x = s.step(u + guidance * (c - u), t, x).prev_sample
    return x


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", default="glyphs.npz")
    p.add_argument("--out", default="runs/unet")
    p.add_argument("--widths", default="16,48,96")
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--decay", type=float, default=15, help="the last minutes, in which the learning rate falls to zero")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--keep", default="", help="minutes after which to keep a copy, e.g. 15,30")
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(1)
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    X, Y, _ = load(o.data, False)
    net = unet(tuple(map(int, o.widths.split(","))))
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    opt = torch.optim.AdamW(net.parameters(), o.lr, weight_decay=1e-4, betas=(0.9, 0.99))
    step, before = 0, 0.0
    if o.resume:
        c = torch.load(out / "state.pt")
        net.load_state_dict(c["net"]), ema.load_state_dict(c["ema"]), opt.load_state_dict(c["opt"])
        step, before = c["step"], c["seconds"]
        torch.manual_seed(o.seed + step)
    print(f"{len(X)} pictures, {sum(q.numel() for q in net.parameters())} parameters", flush=True)
    alphas = scheduler().alphas_cumprod
    start, order, losses = time.time(), torch.randperm(len(X)), []
    saved = noted = start
    keep = [float(k) for k in o.keep.split(",") if k]

    def save(to, lr):
        torch.save(dict(net=net.state_dict(), ema=ema.state_dict(), opt=opt.state_dict(), step=step, seconds=before + time.time() - start, lr=lr), to)

    while (now := time.time() - start) < o.minutes * 60:
        left = o.minutes * 60 - now
        lr = o.lr * min(1, (step + 1) / 200) * min(1, left / (o.decay * 60))
        for g in opt.param_groups:
            g["lr"] = lr
        if len(order) < o.batch:
            order = torch.randperm(len(X))
        i, order = order[: o.batch], order[o.batch :]
        x = affine(X[i], 5, 0.06, 0.08, 0.06, 0.06)
        y = torch.where(torch.rand(o.batch) < 0.12, UNCONDITIONAL, Y[i])
        t = ((torch.arange(o.batch) + torch.rand(o.batch)) / o.batch * 1000).long()  # one timestep from each of batch equal strata
        a = alphas[t].view(-1, 1, 1, 1)
        z = torch.randn_like(x)
        loss = F.mse_loss(net(a.sqrt() * x + (1 - a).sqrt() * z, t, class_labels=y).sample, a.sqrt() * z - (1 - a).sqrt() * x)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        step += 1
        d = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - d)
        losses.append(loss.item())
        if time.time() - noted > 60:
            noted = time.time()
            print(f"{now / 60:5.1f} min, step {step}, loss {np.mean(losses[-100:]):.4f}, lr {lr:.1e}", flush=True)
        if time.time() - saved > 240:
            saved = time.time()
            save(out / "state.pt", lr)
        if keep and now > keep[0] * 60:
            save(out / f"state_{keep.pop(0):g}.pt", lr)
    save(out / "state.pt", 0.0)
    sheet(sample(ema, torch.arange(len(LABELS)).repeat(4)), len(LABELS), out / "samples.png")
    print(f"done: step {step}, loss {np.mean(losses[-500:]):.4f}, {(before + time.time() - start) / 60:.1f} min")


if __name__ == "__main__":
    main()
