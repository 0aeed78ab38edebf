"""References for tests/detectors.rs: detectors with weights that both sides
make from a hash of their names, so that only shapes and outputs are kept.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm safetensors
    venv/bin/python scripts/references/detectors.py tests/fixtures
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy
import torch
import torchvision

from architectures import numbers, weight


def load(model, quiet):
    """Weights out of their names, those of `quiet` a quarter; what the test needs to make them, too."""
    state = model.state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
    for k, shape in shapes.items():
        state[k] = torch.from_numpy(weight(k, shape)) * (0.25 if k in quiet else 1.0)
    model.load_state_dict(state)
    return {"tensors": {k: list(s) for k, s in shapes.items()}, "quiet": quiet}


def picture(height, width):
    """Bytes `[h, w, 3]`: blocks of hashed colours."""
    blocks = numbers("picture", (height // 8) * (width // 8) * 3).reshape(height // 8, width // 8, 3)
    return np.round((blocks.repeat(8, 0).repeat(8, 1) + 1) * 127.5).astype(np.uint8)


def rows(found):
    return torch.cat([found["boxes"], found["scores"][:, None], found["labels"][:, None].float()], 1).numpy()


def same(a, b):
    """Whether two lists of detections are one, but for rounding and the order of near equals."""
    if a.shape != b.shape:
        return False
    return all((np.abs(b - row) < [0.3, 0.3, 0.3, 0.3, 2e-3, 0.5]).all(1).any() for row in a)


def ssdlite():
    """torchvision's, 7 classes with the background: outputs of the heads and what is found."""
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=7
    ).eval()
    # Else all scores are nearly 1.
    quiet = [f"head.{head}_head.module_list.{i}.1.weight" for head in ("classification", "regression") for i in range(6)]
    shapes = load(model, quiet)
    x = torch.from_numpy(picture(320, 320)).permute(2, 0, 1).float() / 255
    heads = {}
    model.head.register_forward_hook(lambda _, __, y: heads.update(y))
    with torch.no_grad():
        found = rows(model([x])[0])
        # Rounding must not decide what is found.
        model.head.register_forward_hook(lambda _, __, y: {k: v + 3e-5 * torch.randn_like(v) for k, v in y.items()})
        stable = [same(found, rows(model([x])[0])) for _ in range(5)]
    print(f"ssdlite: {len(found)} boxes, scores {found[:, 4].min():.3g} to {found[:, 4].max():.3g}, stable {stable}, "
          f"classes {np.bincount(found[:, 5].astype(int))}, logits {heads['cls_logits'].std():.3g}, boxes {heads['bbox_regression'].std():.3g}")
    arrays = {
        "logits": heads["cls_logits"].reshape(-1)[::7].numpy(),
        "regression": heads["bbox_regression"].reshape(-1)[::7].numpy(),
        "found": found,
    }
    return shapes, arrays


def main(folder):
    shapes, arrays = {}, {}
    for make in (ssdlite,):
        shapes[make.__name__], made = make()
        arrays.update({f"{make.__name__}.{k}": np.ascontiguousarray(v, dtype=np.float32) for k, v in made.items()})
    folder = pathlib.Path(folder)
    (folder / "detectors.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, folder / "detectors.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
