"""Render A-Z and 0-9 from the fonts of fonts.tsv into glyphs.npz (32x32, ink 255 on 0), and the held-out sheet.

    python render.py --fonts /usr/share/fonts --out glyphs.npz --sheet letters-heldout.png
"""
import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CHARS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SIZE, MARGIN, EM = 32, 3, 160
NEAR = 0.045  # two pictures of one character closer than this (root mean square, ink 0..1) count as one


def glyph(font, char):
    """One character, cropped to its ink, scaled to fit and centred; None where nothing is drawn."""
    im = Image.new("L", (EM * 4, EM * 4))
    ImageDraw.Draw(im).text((EM, EM), char, font=font, fill=255)
    box = im.getbbox()
    if box is None or box[2] - box[0] < 3 or box[3] - box[1] < EM // 8:
        return None
    ink = im.crop(box)
    k = (SIZE - 2 * MARGIN) / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * k)), max(1, round(ink.height * k))), Image.BOX if k > 1 else Image.BICUBIC)
    out = Image.new("L", (SIZE, SIZE))
    out.paste(ink, ((SIZE - ink.width) // 2, (SIZE - ink.height) // 2))
    return np.asarray(out)


def face(path):
    """The 36 pictures of a font file (None where missing), or None for a font without real Latin capitals and digits."""
    try:
        font = ImageFont.truetype(str(path), EM)
        blank = [glyph(font, c) for c in "\uffff\U000f1234"]
        pics = [glyph(font, c) for c in CHARS]
    except OSError:
        return None
    pics = [None if p is None or any(b is not None and np.array_equal(p, b) for b in blank) else p for p in pics]
    have = [p for p in pics if p is not None]
    if len(have) < 20 or len({p.tobytes() for p in have}) < len(have) * 0.8:
        return None
    return pics


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--fonts", default="/usr/share/fonts")
    p.add_argument("--list", default=Path(__file__).parent / "fonts.tsv")
    p.add_argument("--skip", default=Path(__file__).parent / "skip.txt", help="font files, or file:CHARS, left out after looking at the sheets")
    p.add_argument("--out", default="glyphs.npz")
    p.add_argument("--sheet", help="write the held-out sheet (36 columns, a row per face)")
    p.add_argument("--rows", type=int, default=24)
    o = p.parse_args()
    skip = {}
    if Path(o.skip).exists():
        for line in Path(o.skip).read_text().splitlines():
            if line and line[0] != "#":
                f, _, chars = line.partition(":")
                skip[f.strip()] = chars.strip() or CHARS
    kept = {c: np.zeros((0, SIZE * SIZE), np.float32) for c in range(36)}
    X, Y, F, S, complete = [], [], [], [], {}
    fonts = list(csv.DictReader(open(o.list), delimiter="\t"))
    for i, f in enumerate(fonts):
        bad = skip.get(f["file"], "")
        pics = None if bad == CHARS else face(Path(o.fonts) / f["file"])
        if pics is None:
            continue
        pics = [None if CHARS[c] in bad else g for c, g in enumerate(pics)]
        fresh = 0
        for c, g in enumerate(pics):
            if g is None:
                continue
            v = g.reshape(1, -1).astype(np.float32) / 255
            if len(kept[c]) and np.sqrt(((kept[c] - v) ** 2).mean(1)).min() < NEAR:
                continue
            kept[c] = np.concatenate([kept[c], v])
            X.append(g), Y.append(c), F.append(i), S.append(f["split"] == "heldout")
            fresh += 1
        if f["split"] == "heldout" and all(g is not None for g in pics) and fresh >= 24:
            complete.setdefault(f["package"], []).append(pics)
    S = np.array(S)
    np.savez_compressed(o.out, x=np.stack(X), y=np.array(Y), font=np.array(F), heldout=S)
    print(f"{len(X)} pictures of {len(set(F))} faces: {(~S).sum()} train ({len(set(np.array(F)[~S]))} faces), {S.sum()} held out ({len(set(np.array(F)[S]))} faces)")
    if o.sheet:
        rows, queue = [], [list(v) for v in complete.values()]
        while len(rows) < o.rows and any(queue):  # faces in turn from each package
            for q in queue:
                if q and len(rows) < o.rows:
                    rows.append(q.pop(0))
        Image.fromarray(np.concatenate([np.concatenate(r, 1) for r in rows], 0)).save(o.sheet, optimize=True)
        print(len(rows), "faces on the sheet")


if __name__ == "__main__":
    main()
