"""The photographs of photographs.tsv, from the folders of installed packages."""
import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def load(*splits):
    """Name -> picture of 8 bits a channel, RGB, of these splits."""
    out = {}
    for row in csv.DictReader(open(Path(__file__).parent / "photographs.tsv"), delimiter="\t"):
        if row["split"] in splits:
            package, _, file = row["file"].partition("/")
            folder = find_spec(package).submodule_search_locations[0]
            out[row["name"]] = Image.open(Path(folder) / file).convert("RGB")
    return out


def shrunk(im, k):
    return im if k == 1 else im.resize((round(im.width * k), round(im.height * k)), Image.LANCZOS)


def sharp(photographs, scales=(1, 0.71, 0.5)):
    """Each picture at several scales; those with the blocks of JPEG never at their own."""
    return [shrunk(im, k) for name, im in photographs.items() for k in scales
            if not (k == 1 and name in ("hubble_deep_field", "retina", "rocket"))]


def tensor(im):
    """[3,h,w], 0..1."""
    return torch.from_numpy(np.asarray(im).copy()).permute(2, 0, 1).float() / 255


def psnr(a, b, border=0):
    """dB, of pictures 0..1, without `border` pixels at each side; over all channels."""
    if border:
        a, b = (v[..., border:-border, border:-border] for v in (a, b))
    return -10 * torch.log10(((a.clamp(0, 1) - b) ** 2).mean()).item()
