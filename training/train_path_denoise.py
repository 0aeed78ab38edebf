"""Train the denoiser for path-traced frames; report PSNR on families of scenes that it has not seen, beside that of the noisy frames.

    cargo run --release --example render_scenes -- --out scenes/train --families training --scenes 60 --side 128 --draws 8 --samples 256
    cargo run --release --example render_scenes -- --out scenes/heldout --families held-out --scenes 6 --side 160 --draws 8 --samples 1024
    python train_path_denoise.py --data scenes --minutes 45 --out runs/path-denoise
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

DARKEST = 1 / 16  # is added to albedos, so that black can be divided by
BRIGHTEST = 65504.0
STEEPEST = 12.0  # no correction of a logarithm is larger
CURVE = 8.0  # of `curve`


def conv(a, b):
    return nn.Conv2d(a, b, 3, 1, 1)


class PathDenoise(nn.Module):
    """Chooses for each pixel over how many of its neighbours to take the mean of the light without the surfaces' colours, and corrects it.

    A U-Net (Ronneberger et al. 2015) on squares of 2x2 pixels sees the light's logarithm, albedo and normal. It gives shares of five means,
    what is to be added to the logarithm of their sum, and to the albedo, whose edges are as noisy as the frame's.
    """

    def __init__(self, widths=(32, 48, 64, 64)):
        super().__init__()
        a, b, c, d = widths
        self.head, self.enc1, self.enc2, self.enc3, self.enc4 = conv(60, a), conv(a, a), conv(a, b), conv(b, c), conv(c, d)
        self.mid = conv(d, d)
        self.dec3a, self.dec3b = conv(d + c, c), conv(c, c)
        self.dec2a, self.dec2b = conv(c + b, b), conv(b, b)
        self.dec1a, self.dec1b = conv(b + a, a), conv(a, a)
        self.tail = conv(a, 44)
        nn.init.zeros_(self.tail.weight), nn.init.zeros_(self.tail.bias)

    def features(self, x):
        """[n, 15, h, w] -> [n, 11, h, w]; sides multiples of 16."""
        up = lambda x: F.interpolate(x, scale_factor=2, mode="nearest")
        h1 = self.enc1(self.head(F.pixel_unshuffle(x, 2)).relu()).relu()
        h2 = self.enc2(F.max_pool2d(h1, 2)).relu()
        h3 = self.enc3(F.max_pool2d(h2, 2)).relu()
        h = self.mid(self.enc4(F.max_pool2d(h3, 2)).relu()).relu()
        h = self.dec3b(self.dec3a(torch.cat([up(h), h3], 1)).relu()).relu()
        h = self.dec2b(self.dec2a(torch.cat([up(h), h2], 1)).relu()).relu()
        h = self.dec1b(self.dec1a(torch.cat([up(h), h1], 1)).relu()).relu()
        return F.pixel_shuffle(self.tail(h), 2)

    def forward(self, colour, albedo, normal, signed=False):
        """Linear light from zero up, albedo 0 to 1, normals -1 to 1, [n, 3, h, w] of any size -> linear light; `signed`: as it is learnt, not cut off."""
        h, w = colour.shape[2:]
        x = torch.cat([torch.where(v.isnan(), 0.0, v).clamp(*span) for v, span in ((colour, (0, BRIGHTEST)), (albedo, (0, 1)), (normal, (-1, 1)))], 1)
        colour, albedo, normal = F.pad(x, (0, -w % 16, 0, -h % 16), mode="replicate").split(3, 1)
        light = colour / (albedo + DARKEST)
        mean = lambda k: F.interpolate(F.avg_pool2d(light, k), scale_factor=k, mode="bilinear", align_corners=False)
        means = [light] + [mean(k) for k in (2, 4, 8, 16)]
        y = self.features(torch.cat([(means[0] + 1).log(), (means[2] + 1).log(), (means[4] + 1).log(), albedo, normal], 1)).float()
        shares = y[:, 6:].softmax(1)
        mixed = sum(shares[:, i:i + 1] * m for i, m in enumerate(means))
        light = (mixed + 1) * y[:, :3].clamp(-STEEPEST, STEEPEST).exp() - 1
        out = light * ((albedo + y[:, 3:6]).clamp(0, 1) + DARKEST)
        return (out if signed else out.clamp(0, BRIGHTEST))[:, :, :h, :w]


def curve(x):
    """Brightness as it is seen, roughly; one stays one."""
    return x.sign() * (CURVE * x.abs()).log1p() / np.log1p(CURVE)


def srgb(x):
    x = x.clamp(0, 1)
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def psnr(a, b):
    """Of linear pictures, as they are shown: cut off at one, sRGB."""
    return -10 * (srgb(a) - srgb(b)).square().mean().log10().item()


def exposure(target, mean):
    """What brings the mean luminance of a reference [3, h, w], at most 4 anywhere, to `mean`."""
    luminance = (target * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0)
    k = 1.0
    for _ in range(8):
        k *= mean / (k * luminance).clamp(max=4).mean().clamp(min=1e-6)
    return k


def scenes(folder):
    """Name -> noisy [draws, 9, h, w] f16, target [3, h, w], of all but those that are black: a camera may stand in a thing."""
    out = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        t = load_file(file)
        if t["target"].mean() > 0.01:
            out[file.stem] = t["noisy"].permute(0, 3, 1, 2).contiguous(), t["target"].permute(2, 0, 1).contiguous()
    return out


def frame(noisy, first, samples, k=1.0):
    """Colour, albedo and normal of a frame of so many samples, [1, 3, h, w] each."""
    x = noisy[first:first + samples].float().mean(0, keepdim=True)
    return x[:, :3] * k, x[:, 3:6], x[:, 6:]


@torch.no_grad()
def evaluate(net, data, counts=(1, 2, 4)):
    """Samples -> mean PSNR of the noisy and the restored frames."""
    out = {}
    for samples in counts:
        rows = []
        for noisy, target in data.values():
            k = exposure(target, 0.35)
            x = frame(noisy, 0, samples, k)
            rows.append([psnr(v[0], target * k) for v in (x[0], net(*x))])
        out[samples] = [round(v, 2) for v in np.mean(rows, 0).tolist()]
    return out


def batch(data, rng, size, crop):
    """Noisy colour, albedo and normal, and the target, of random crops."""
    names, xs, targets = list(data), [], []
    for i in rng.integers(len(names), size=size):
        noisy, target = data[names[i]]
        y, x = (int(rng.integers(s - crop + 1)) for s in target.shape[1:])
        # Space may be turned and mirrored, and light of any colour called by another; one draw or several.
        axes, signs = rng.permutation(3), torch.from_numpy(rng.choice([-1.0, 1.0], 3)).float()[:, None, None]
        colours = torch.from_numpy(rng.permutation(3))
        draws = torch.from_numpy(rng.permutation(len(noisy))[:rng.choice([1, 1, 2, 4, 8])])
        v = noisy[draws, :, y:y + crop, x:x + crop].float().mean(0)
        if len(draws) == 8:
            # Down to what hundreds of samples leave, as frames have that are accumulated.
            clean = target[:, y:y + crop, x:x + crop]
            v[:3] = clean + (v[:3] - clean) * rng.uniform(0.2, 1)
        k = exposure(target, np.exp(rng.uniform(np.log(0.12), np.log(0.8))))
        v = torch.cat([v[colours] * k, v[3:6][colours], v[6:][torch.from_numpy(axes)] * signs, target[colours, y:y + crop, x:x + crop] * k])
        v = v.rot90(int(rng.integers(4)), (1, 2))
        v = v.flip(2) if rng.integers(2) else v
        xs.append(v[:9]), targets.append(v[9:])
    return torch.stack(xs).split(3, 1), torch.stack(targets)


def loss_of(out, target):
    """Huber's of what is seen, and L1 of its differences between neighbours."""
    a, b = curve(out), curve(target)
    slope = sum((a.diff(dim=d) - b.diff(dim=d)).abs().mean() for d in (2, 3))
    return F.smooth_l1_loss(a, b, beta=0.1) + 0.25 * slope


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", type=Path, default="scenes")
    p.add_argument("--out", type=Path, default="runs/path-denoise")
    p.add_argument("--minutes", type=float, default=45)
    p.add_argument("--batch", type=int, default=6)
    p.add_argument("--crop", type=int, default=64)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--resume", type=Path, help="weights to go on from")
    p.add_argument("--threads", type=int, default=2)
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(o.threads)
    rng = np.random.default_rng(o.seed)
    o.out.mkdir(parents=True, exist_ok=True)
    data, heldout = scenes(o.data / "train"), scenes(o.data / "heldout")
    net = PathDenoise().to(memory_format=torch.channels_last)
    if o.resume:
        net.load_state_dict(torch.load(o.resume))
    # What is kept is the mean of the weights over the last few hundred steps.
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.997))
    opt = torch.optim.Adam(net.parameters(), o.lr)
    seconds, step, losses, note = 0.0, 0, [], 150
    while (f := seconds / (o.minutes * 60)) < 1:
        start = time.time()
        for g in opt.param_groups:
            g["lr"] = o.lr * min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * f))
        x, target = batch(data, rng, o.batch, o.crop)
        with torch.autocast("cpu", torch.bfloat16, enabled=f < 0.8):
            out = net(*x, signed=True)
        loss = loss_of(out.float(), target)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        mean.update_parameters(net)
        step += 1
        losses.append(loss.item())
        # On a machine that others measure on, too, it is stopped at times; that does not count.
        seconds += min(time.time() - start, 2.0)
        if seconds > note:
            note += 150
            print(f"{seconds:4.0f} s, step {step}, loss {np.mean(losses[-100:]):.5f}, {evaluate(mean.module, heldout, (1,))}", flush=True)
            torch.save(mean.module.state_dict(), o.out / "net.pt")
    net = mean.module
    torch.save(net.state_dict(), o.out / "net.pt")
    result = dict(parameters=sum(q.numel() for q in net.parameters()), scenes=len(data), steps=step, seconds=round(seconds), psnr=evaluate(net, heldout))
    (o.out / "result.json").write_text(json.dumps(result, indent=1))
    print(result)


if __name__ == "__main__":
    main()
