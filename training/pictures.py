"""Write the pictures that the README's commands read, from held-out photographs and fonts.

    python pictures.py --glyphs glyphs.npz --out ../examples/pictures
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from photographs import load, tensor
from scenes import Pen, faces
from train_denoise import eight_bits
from train_upscale import halved


def picture(v):
    return Image.fromarray((v * 255).round().byte().permute(1, 2, 0).numpy())


def letters(rng, pen, photograph):
    """Rows of text in five fonts over a photograph, 384x256; and what stands where."""
    truth = []
    a = np.asarray(photograph.resize((384, 256), Image.LANCZOS)).astype(np.float32) * 0.6 + 10
    rows = [("AQUATINT", 44, 20, 60, (250, 244, 230)), ("COPPER PLATE", 24, 28, 108, (240, 200, 120)), ("1768", 52, 24, 186, (255, 255, 255)), ("ROSIN", 34, 210, 176, (250, 230, 90)),
            ("ETCH 25", 20, 222, 232, (255, 255, 255))]
    for k, (text, height, x, y, ink) in enumerate(rows):
        font = pen.font(k, height)
        for char in text:
            m = None if char == " " else pen.mask(font, char)
            if m:
                im, dx, dy = m
                ink_mask = np.asarray(im).astype(np.float32)[..., None] / 255
                region = (slice(y + dy, y + dy + im.height), slice(round(x) + dx, round(x) + dx + im.width))
                a[region] = a[region] * (1 - ink_mask) + np.array(ink, np.float32) * ink_mask
                ys, xs = np.nonzero(ink_mask[..., 0] > 0.4)
                left, top = region[1].start, region[0].start
                truth.append({"label": char, "box": [int(v) for v in (left + xs.min(), top + ys.min(), left + xs.max() + 1, top + ys.max() + 1)]})
            x += font.getlength(char) + height * 0.08
    return Image.fromarray(a.clip(0, 255).astype(np.uint8)), truth


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--fonts", default="/usr/share/fonts")
    p.add_argument("--glyphs", default="glyphs.npz")
    p.add_argument("--out", default="../examples/pictures", type=Path)
    o = p.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    coffee = load("heldout")["coffee"]
    rng = np.random.default_rng(4)
    every = faces(o.fonts, o.glyphs, True)
    pen = Pen([every[i] for i in rng.permutation(len(every))])
    clean = coffee.crop((190, 60, 446, 252))
    noise = torch.randn(3, clean.height, clean.width, generator=torch.Generator().manual_seed(3)) * 25 / 255
    scene, truth = letters(rng, pen, coffee)
    (o.out / "letters.json").write_text("[\n  " + ",\n  ".join(map(json.dumps, truth)) + "\n]\n")
    pictures = {"coffee-small": halved(coffee.crop((170, 50, 490, 290)))[0],
                "coffee-noisy": picture(eight_bits(tensor(clean) + noise)), "letters": scene}
    coffee.save(o.out / "coffee.jpg", quality=92)
    for name, im in pictures.items():
        im.save(o.out / f"{name}.png", optimize=True)
        print(name, im.size, (o.out / f"{name}.png").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
