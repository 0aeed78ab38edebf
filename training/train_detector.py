"""Train the detector of capital letters and digits; report average precision on scenes of held-out fonts and photographs.

    python train_detector.py --scenes scenes --minutes 20 --out runs/detector
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
from torchvision.ops import batched_nms, box_iou, generalized_box_iou_loss, nms

LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
STRIDES = (4, 8, 16)
REACH = (0, 26, 52, 1e9)  # longer side of the boxes that each stride looks for, pixels


class Conv(nn.Sequential):
    """Convolution, batch norm, ReLU; exported as one convolution with a bias."""

    def __init__(self, i, o, kernel=3, stride=1):
        super().__init__(nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = Conv(width, width), Conv(width, width)

    def forward(self, x):
        return x + self.b(self.a(x))


class Detector(nn.Module):
    """Three levels down, a feature pyramid back up, and one convolution at each stride: 4 numbers of the box, then a score for each class."""

    def __init__(self, widths=(16, 32, 40, 56), hidden=56, classes=len(LABELS)):
        super().__init__()
        a, b, c, d = widths
        self.stem = Conv(3, a, 3, 2)
        self.down1, self.block1 = Conv(a, b, 3, 2), Residual(b)
        self.down2, self.block2 = Conv(b, c, 3, 2), Residual(c)
        self.down3, self.block3 = Conv(c, d, 3, 2), Residual(d)
        self.up3, self.up2 = Conv(d, c, 1), Conv(c, b, 1)
        self.out1, self.out2, self.out3 = (Conv(w, hidden) for w in (b, c, d))
        self.head1, self.head2, self.head3 = (nn.Conv2d(hidden, 4 + classes, 1) for _ in STRIDES)
        for head in (self.head1, self.head2, self.head3):
            nn.init.normal_(head.weight, 0, 0.01)
            nn.init.constant_(head.bias[4:], -4.6)
            nn.init.zeros_(head.bias[:4])

    def raw(self, x):
        """[n,candidates,4+classes]: centre from the cell's in strides, logarithm of width and height in strides, scores before the sigmoid."""
        x1 = self.block1(self.down1(self.stem(x)))
        x2 = self.block2(self.down2(x1))
        x3 = self.block3(self.down3(x2))
        x2 = x2 + F.interpolate(self.up3(x3), scale_factor=2)
        x1 = x1 + F.interpolate(self.up2(x2), scale_factor=2)
        levels = self.head1(self.out1(x1)), self.head2(self.out2(x2)), self.head3(self.out3(x3))
        return torch.cat([v.flatten(2) for v in levels], 2).transpose(1, 2)

    def forward(self, x):
        """Boxes [n,candidates,4] (left, top, right, bottom in pixels), scores [n,candidates,classes]."""
        t = self.raw(x)
        centre, stride = cells(x.shape[2], x.shape[3])
        return boxes(t[..., :4], centre, stride), t[..., 4:].sigmoid()


def cells(h, w):
    """Centres [candidates,2] (x, y) and strides [candidates,1] of all cells."""
    centre, stride = [], []
    for s in STRIDES:
        y, x = torch.meshgrid(torch.arange(h // s), torch.arange(w // s), indexing="ij")
        centre.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * s)
        stride.append(torch.full((len(centre[-1]), 1), float(s)))
    return torch.cat(centre), torch.cat(stride)


def boxes(t, centre, stride):
    middle, half = centre + t[..., :2] * stride, t[..., 2:].clamp(max=5).exp() * stride / 2
    return torch.cat([middle - half, middle + half], -1)


def assign(target, label, centre, stride, size):
    """Which letter each cell answers for, -1 for none: those whose middle is near, at the stride of their size; the smallest wins."""
    answer = torch.full((len(centre),), -1)
    middle, longest = (target[:, :2] + target[:, 2:]) / 2, (target[:, 2:] - target[:, :2]).amax(1)
    start = 0
    for k, s in enumerate(STRIDES):
        n = (size // s) ** 2
        mine = ((longest >= REACH[k]) & (longest < REACH[k + 1])).nonzero()[:, 0]
        for i in mine[longest[mine].argsort(descending=True)]:
            near = ((centre[start:start + n] - middle[i]).abs() < 0.75 * s).all(1)
            answer[start:start + n][near] = i
        # The cell under the middle belongs to it in any case.
        for i in mine:
            x, y = (middle[i] / s).long().clamp(0, size // s - 1).tolist()
            answer[start + y * (size // s) + x] = i
        start += n
    return answer


def losses(net, x, targets, labels):
    size = x.shape[2]
    t = net.raw(x)
    centre, stride = cells(size, size)
    answers = [assign(b, l, centre, stride, size) for b, l in zip(targets, labels)]
    wanted = torch.zeros(*t.shape[:2], len(LABELS))
    places = [(a >= 0).nonzero()[:, 0] for a in answers]
    positives = max(1, sum(len(p) for p in places))
    pictures = torch.cat([torch.full((len(p),), n) for n, p in enumerate(places)])
    places = torch.cat(places)
    box = torch.cat([b[a[a >= 0]] for a, b in zip(answers, targets)])
    label = torch.cat([l[a[a >= 0]] for a, l in zip(answers, labels)])
    c, s, found = centre[places], stride[places], t[pictures, places, :4]
    decoded = boxes(found, c, s)
    # Distance in the network's own numbers keeps a gradient where boxes do not touch; GIoU is what counts.
    own = torch.cat([((box[:, :2] + box[:, 2:]) / 2 - c) / s, ((box[:, 2:] - box[:, :2]) / s).log()], 1)
    place_loss = generalized_box_iou_loss(decoded, box, reduction="sum") + F.smooth_l1_loss(found, own, reduction="sum", beta=0.2)
    # Quality focal loss (Li et al. 2020): the score to learn is the overlap reached.
    with torch.no_grad():
        overlap = 1 - generalized_box_iou_loss(decoded, box).clamp(0, 1)
    wanted[pictures, places, label] = overlap
    weight = (t[..., 4:].sigmoid() - wanted).abs() ** 2
    class_loss = (F.binary_cross_entropy_with_logits(t[..., 4:], wanted, reduction="none") * weight.detach()).sum()
    # Focal losses learn which letter it is slowly: most of their gradient goes to where nothing is.
    which = F.cross_entropy(t[pictures, places, 4:], label)
    return 2 * class_loss / positives, place_loss / positives, which


def average_precision(found, truth, least=0.5):
    """found: [(picture, score, box)] of a class; truth: picture -> boxes. Area under the precision envelope (VOC 2010)."""
    total = sum(len(b) for b in truth.values())
    used, hits = {k: set() for k in truth}, []
    for picture, _, box in sorted(found, key=lambda f: -f[1]):
        hit = False
        if picture in truth:
            overlap = box_iou(box[None], truth[picture])[0]
            i = int(overlap.argmax())
            hit = bool(overlap[i] >= least) and i not in used[picture]
            if hit:
                used[picture].add(i)
        hits.append(hit)
    hits = np.array(hits, bool)
    if not len(hits) or not total:
        return 0.0
    right = hits.cumsum()
    precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((precision * hits).sum() / total)


def suppress(box, score, least=0.05, overlap=0.5, across=True):
    """Kept boxes, scores, classes of one picture; `across`: one box suppresses those of other classes too."""
    i, c = (score > least).nonzero(as_tuple=True)
    b, s = box[i], score[i, c]
    keep = (nms(b, s, overlap) if across else batched_nms(b, s, c, overlap))[:100]
    return b[keep], s[keep], c[keep]


PAIRS = {LABELS.index("0"): LABELS.index("O"), LABELS.index("1"): LABELS.index("I")}


@torch.no_grad()
def evaluate(net, folder, count=400):
    net.eval()
    x, truth_boxes, truth_labels = (np.load(Path(folder) / f"heldout-{n}.npy")[:count] for n in ("x", "boxes", "labels"))
    found, kinds = [], {"mAP@0.5": lambda c: c, "with O/0 and I/1 as pairs": lambda c: PAIRS.get(c, c), "any character": lambda c: 0}
    for k in range(len(x)):
        b, s = net(torch.from_numpy(x[k]).permute(2, 0, 1)[None].float() / 255)
        b, s, c = suppress(b[0], s[0])
        found += [(k, float(v), box, int(cc)) for v, box, cc in zip(s, b, c)]
    out = {}
    for name, group in kinds.items():
        ap = []
        for c in sorted({group(c) for c in range(len(LABELS))}):
            truth = {}
            for k in range(len(x)):
                rows = [i for i in range(truth_labels.shape[1]) if truth_labels[k, i] >= 0 and group(int(truth_labels[k, i])) == c]
                if rows:
                    truth[k] = torch.from_numpy(truth_boxes[k][rows]).float()
            ap.append(average_precision([f[:3] for f in found if group(f[3]) == c], truth))
        out[name] = round(float(np.mean(ap)), 4)
    return out


def batch(rng, x, truth_boxes, truth_labels, n, crop):
    """Random crops with changed colours; letters of which a fifth or more is cut off are not asked for."""
    pictures, targets, labels = [], [], []
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
        have = truth_labels[k] >= 0
        b, l = truth_boxes[k][have].astype(np.float32), truth_labels[k][have].astype(np.int64)
        b = b - np.array([left, top, left, top], np.float32)
        cut = b.clip(0, crop)
        keep = (cut[:, 2:] - cut[:, :2]).prod(1) > 0.8 * (b[:, 2:] - b[:, :2]).prod(1)
        pictures.append(v.clamp(0, 1)), targets.append(torch.from_numpy(cut[keep])), labels.append(torch.from_numpy(l[keep]))
    return torch.stack(pictures), targets, labels


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--scenes", default="scenes", type=Path)
    p.add_argument("--out", default="runs/detector")
    p.add_argument("--start", help="net.pt whose weights of the same shape are taken over")
    p.add_argument("--minutes", type=float, default=20)
    p.add_argument("--batch", type=int, default=12)
    p.add_argument("--crop", type=int, default=160)
    p.add_argument("--lr", type=float, default=2.5e-3)
    p.add_argument("--seed", type=int, default=0)
    o = p.parse_args()
    torch.manual_seed(o.seed), torch.set_num_threads(1)
    rng = np.random.default_rng(o.seed)
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    data = [np.load(o.scenes / f"train-{n}.npy", mmap_mode="r") for n in ("x", "boxes", "labels")]
    net = Detector().to(memory_format=torch.channels_last)  # faster on a CPU
    if o.start:
        own = net.state_dict()
        net.load_state_dict({k: v for k, v in torch.load(o.start).items() if v.shape == own[k].shape}, strict=False)
    opt = torch.optim.AdamW(net.parameters(), o.lr, weight_decay=0.01)
    start, step, history, note = time.time(), 0, [], 60
    while (f := (time.time() - start) / (o.minutes * 60)) < 1:
        for g in opt.param_groups:
            g["lr"] = o.lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * f))
        net.train()
        x, targets, labels = batch(rng, *data, o.batch, o.crop)
        parts = losses(net, x.contiguous(memory_format=torch.channels_last), targets, labels)
        opt.zero_grad()
        sum(parts).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10)
        opt.step()
        step += 1
        history.append([v.item() for v in parts])
        if time.time() - start > note:
            note += 120
            print(f"{time.time() - start:4.0f} s, step {step}, losses {np.mean(history[-200:], 0).round(4)}, {evaluate(net, o.scenes, 60)}", flush=True)
            torch.save(net.state_dict(), out / "net.pt")
    torch.save(net.state_dict(), out / "net.pt")
    result = dict(parameters=sum(q.numel() for q in net.parameters()), steps=step, seconds=round(time.time() - start), heldout=evaluate(net, o.scenes))
    (out / "result.json").write_text(json.dumps(result, indent=1))
    print(result)


if __name__ == "__main__":
    main()
