"""Render scenes of capital letters and digits for the detector and the segmenter: pictures, boxes, classes of pixels.

    python scenes.py --out scenes --train 5000 --heldout 400

A scene is 256x256: a photograph's crop, a gradient, soft noise or one colour, lines and discs, then strings of one font, size, colour and angle
each, that do not overlap; then blur, noise and JPEG. Capitals are 12 to 96 px high, angles up to 20 degrees.
"""
import argparse
import csv
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from photographs import load
from render import CHARS

SIZE, MOST = 256, 40  # pixels; letters of a scene


def faces(folder, glyphs, heldout):
    """Font files that gave pictures to the classifier's data, and which characters they have."""
    fonts = list(csv.DictReader(open(Path(__file__).parent / "fonts.tsv"), delimiter="\t"))
    z = np.load(glyphs)
    skipped = {}
    for line in (Path(__file__).parent / "skip.txt").read_text().splitlines():
        if line and line[0] != "#":
            f, _, chars = line.partition(":")
            skipped[f.strip()] = chars.strip()
    out = []
    for i in sorted(set(z["font"][z["heldout"] == heldout])):
        f = fonts[i]["file"]
        out.append((str(Path(folder) / f), [c for c in CHARS if c not in skipped.get(f, "")]))
    return out


class Pen:
    """Draws characters of a font with capitals of a given height, without reading the file each time."""

    def __init__(self, faces):
        self.faces, self.fonts = faces, {}

    def font(self, i, height):
        if (i, height) not in self.fonts:
            if len(self.fonts) > 4000:
                self.fonts.clear()
            path = self.faces[i][0]
            tall = ImageFont.truetype(path, 100).getbbox("H")
            self.fonts[i, height] = ImageFont.truetype(path, max(6, round(100 * height / max(20, tall[3] - tall[1]))))
        return self.fonts[i, height]

    def mask(self, font, char):
        """The character's ink (or None), and where its left top corner lies from the pen on the baseline."""
        box = font.getbbox(char, anchor="ls")
        w, h = math.ceil(box[2]) - math.floor(box[0]), math.ceil(box[3]) - math.floor(box[1])
        if w < 1 or h < 5 or w > 3 * SIZE or h > 3 * SIZE:
            return None
        im = Image.new("L", (w + 2, h + 2))
        ImageDraw.Draw(im).text((1 - math.floor(box[0]), 1 - math.floor(box[1])), char, font=font, fill=255, anchor="ls")
        return im, math.floor(box[0]) - 1, math.floor(box[1]) - 1


def colour(rng):
    return rng.integers(0, 256, 3) if rng.random() < 0.7 else np.repeat(rng.integers(0, 256), 3)


def background(rng, photographs):
    kind = rng.random()
    if kind < 0.45:
        im = photographs[rng.integers(len(photographs))]
        side = round(SIZE * 2 ** rng.uniform(-1, 0.6))
        side = min(side, *im.size)
        x, y = rng.integers(im.width - side + 1), rng.integers(im.height - side + 1)
        im = im.resize((SIZE, SIZE), Image.BICUBIC, (x, y, x + side, y + side))
        if rng.random() < 0.5:
            im = im.transpose(Image.FLIP_LEFT_RIGHT)
        a = np.asarray(im)[..., rng.permutation(3)]
        return a * rng.uniform(0.6, 1) + rng.uniform(0, 40)
    if kind < 0.65:
        t = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
        k = np.clip(x * math.cos(t) + y * math.sin(t) + 0.5, 0, 1)[..., None]
        return colour(rng) * k + colour(rng) * (1 - k)
    if kind < 0.85:
        n = 2 ** rng.integers(2, 7)
        soft = Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((SIZE, SIZE), Image.BICUBIC)
        k = rng.uniform(0.1, 0.8)
        return np.asarray(soft) * k + colour(rng) * (1 - k)
    return np.broadcast_to(colour(rng), (SIZE, SIZE, 3)).astype(float)


def clutter(rng, a):
    im = Image.fromarray(a.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(im)
    for _ in range(rng.poisson(2)):
        p, kind, c = rng.integers(-20, SIZE + 20, 4), rng.integers(3), tuple(map(int, colour(rng)))
        if kind == 0:
            draw.line(tuple(map(int, p)), c, int(rng.integers(1, 8)))
        else:
            x, y, r, s = int(p[0]), int(p[1]), *(int(v) for v in rng.integers(5, 60, 2))
            fill = c if kind == 1 or rng.random() < 0.5 else None  # a ring would be an O
            (draw.ellipse if kind == 1 else draw.rectangle)((x - r, y - s, x + r, y + s), fill, c, int(rng.integers(1, 6)))
    return np.asarray(im).astype(np.float32)


def text(rng, chars):
    letters = [c for c in chars if c.isalpha()]
    digits = [c for c in chars if c.isdigit()] or letters
    kind, n = rng.random(), 1 + min(rng.geometric(0.3), 8) if rng.random() < 0.75 else 1
    pool = letters if kind < 0.5 else digits if kind < 0.8 else chars
    return "".join(rng.choice(pool or chars, n))


def string(rng, pen, scale):
    """A string drawn with some font, size and angle: [(class, ink)], each ink of the size of the canvas it fills, and its place."""
    i = rng.integers(len(pen.faces))
    height = int(round(12 * 8 ** (rng.random() ** scale)))
    font = pen.font(i, height)
    angle = 0 if rng.random() < 0.3 else rng.uniform(-20, 20)
    spacing = rng.uniform(0, 0.15) * height
    x, parts = 0.0, []
    for c in text(rng, pen.faces[i][1]):
        m = pen.mask(font, c)
        if m is None:
            return None
        im, dx, dy = m
        parts.append((c, im, x + dx, dy))
        x += max(im.width - 2 + dx, font.getlength(c)) + spacing + 1
    t, out = math.radians(angle), []
    for c, im, left, top in parts:
        cx, cy = left + im.width / 2, top + im.height / 2
        turned = im.rotate(-angle, Image.BICUBIC, expand=True) if angle else im
        ux, uy = cx * math.cos(t) - cy * math.sin(t), cx * math.sin(t) + cy * math.cos(t)
        out.append((CHARS.index(c), turned, round(ux - turned.width / 2), round(uy - turned.height / 2)))
    left, top = min(p[2] for p in out), min(p[3] for p in out)
    right, bottom = max(p[2] + p[1].width for p in out), max(p[3] + p[1].height for p in out)
    return [(c, im, x - left, y - top) for c, im, x, y in out], right - left, bottom - top


def scene(rng, pen, photographs):
    """Picture [256,256,3], boxes [m,4] (left, top, right, bottom), labels [m], classes of pixels [256,256] (background, letter, digit)."""
    a = clutter(rng, background(rng, photographs))
    taken, classes = np.zeros((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), np.uint8)
    boxes, labels = [], []
    for _ in range(rng.integers(2, 9)):
        s = string(rng, pen, 1.3)
        if s is None or s[1] >= SIZE or s[2] >= SIZE:
            continue
        parts, w, h = s
        for _ in range(8):
            x, y = rng.integers(SIZE - w), rng.integers(SIZE - h)
            if not taken[y:y + h, x:x + w].any():
                break
        else:
            continue
        if len(boxes) + len(parts) > MOST:
            break
        here = a[y:y + h, x:x + w].mean((0, 1))
        luma = np.array([0.3, 0.59, 0.11])
        for _ in range(20):
            ink = colour(rng).astype(np.float32)
            if abs((ink - here) @ luma) > 60:
                break
        else:
            ink = np.full(3, 0.0 if here @ luma > 127 else 255.0)
        rim = 255 - ink if rng.random() < 0.08 else None
        for c, im, dx, dy in parts:
            m = np.asarray(im).astype(np.float32) / 255
            ys, xs = np.nonzero(m > 0.4)
            if len(ys) == 0:
                continue
            X, Y = x + dx, y + dy
            region = (slice(Y, Y + im.height), slice(X, X + im.width))
            if rim is not None:
                grown = (np.asarray(im.filter(ImageFilter.MaxFilter(3))).astype(np.float32) / 255)[..., None]
                a[region] = a[region] * (1 - grown) + rim * grown
            a[region] = a[region] * (1 - m[..., None]) + ink * m[..., None]
            classes[region][m > 0.5] = 1 if c < 26 else 2
            boxes.append((X + xs.min(), Y + ys.min(), X + xs.max() + 1, Y + ys.max() + 1))
            labels.append(c)
        taken[max(0, y - 2):y + h + 2, max(0, x - 2):x + w + 2] = True
    im = Image.fromarray(a.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        im = im.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
    if rng.random() < 0.4:
        a = np.asarray(im) + rng.normal(0, rng.uniform(1, 12), (SIZE, SIZE, 3))
        im = Image.fromarray(a.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        f = io.BytesIO()
        im.save(f, "JPEG", quality=int(rng.integers(40, 95)))
        im = Image.open(f).convert("RGB")
    return np.asarray(im), boxes, labels, classes


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--fonts", default="/usr/share/fonts")
    p.add_argument("--glyphs", default="glyphs.npz", help="written by render.py")
    p.add_argument("--out", default="scenes", type=Path)
    p.add_argument("--train", type=int, default=5000)
    p.add_argument("--heldout", type=int, default=400)
    o = p.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    for split, n, seed in (("train", o.train, 0), ("heldout", o.heldout, 1)):
        heldout = split == "heldout"
        rng, pen, photographs = np.random.default_rng(seed), Pen(faces(o.fonts, o.glyphs, heldout)), list(load(split).values())
        x, classes = np.zeros((n, SIZE, SIZE, 3), np.uint8), np.zeros((n, SIZE, SIZE), np.uint8)
        boxes, labels = np.zeros((n, MOST, 4), np.int16), np.full((n, MOST), -1, np.int8)
        for k in range(n):
            x[k], b, l, classes[k] = scene(rng, pen, photographs)
            boxes[k, :len(b)], labels[k, :len(l)] = np.array(b).reshape(-1, 4), l
        for name, v in (("x", x), ("classes", classes), ("boxes", boxes), ("labels", labels)):
            np.save(o.out / f"{split}-{name}.npy", v)
        print(split, n, "scenes,", len(pen.faces), "faces,", (labels >= 0).sum(), "letters", flush=True)


if __name__ == "__main__":
    main()
