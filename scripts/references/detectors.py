"""References for tests/detectors.rs: detectors with weights that both sides
make from a hash of their names, so that only shapes and outputs are kept.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm safetensors onnx
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


def load(model, gains, ramps=()):
    """Weights out of their names, times `gains`, `ramps` 0, 1, 2 …; what the test needs to make them, too."""
    state = model.state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
    for k, shape in shapes.items():
        state[k] = torch.from_numpy(weight(k, shape)) * gains.get(k, 1.0)
        if k in ramps:
            state[k] = torch.arange(float(np.prod(shape))).reshape(shape)
    model.load_state_dict(state)
    return {"tensors": {k: list(s) for k, s in shapes.items()}, "gains": gains, "ramps": list(ramps)}


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


class Conv(torch.nn.Module):
    """Convolution, batch norm unless it is folded into it, SiLU."""

    def __init__(self, a, b, kernel=1, stride=1, folded=False):
        super().__init__()
        self.conv = torch.nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=folded)
        if not folded:
            self.bn = torch.nn.BatchNorm2d(b, eps=1e-3)
        self.folded = folded

    def forward(self, x):
        h = self.conv(x)
        return torch.nn.functional.silu(h if self.folded else self.bn(h))


class Bottleneck(torch.nn.Module):
    def __init__(self, width, shortcut, folded):
        super().__init__()
        self.cv1, self.cv2 = Conv(width, width, 3, 1, folded), Conv(width, width, 3, 1, folded)
        self.shortcut = shortcut

    def forward(self, x):
        h = self.cv2(self.cv1(x))
        return x + h if self.shortcut else h


class Stages(torch.nn.Module):
    """A cross-stage partial block that joins all its stages."""

    def __init__(self, a, b, depth, shortcut, folded):
        super().__init__()
        half = b // 2
        self.cv1, self.cv2 = Conv(a, b, 1, 1, folded), Conv((2 + depth) * half, b, 1, 1, folded)
        self.m = torch.nn.ModuleList(Bottleneck(half, shortcut, folded) for _ in range(depth))

    def forward(self, x):
        stages = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            stages.append(block(stages[-1]))
        return self.cv2(torch.cat(stages, 1))


class Pyramid(torch.nn.Module):
    """Spatial pyramid pooling by three pools in a row."""

    def __init__(self, a, b, folded):
        super().__init__()
        self.cv1, self.cv2 = Conv(a, a // 2, 1, 1, folded), Conv(2 * a, b, 1, 1, folded)
        self.m = torch.nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        stages = [self.cv1(x)]
        for _ in range(3):
            stages.append(self.m(stages[-1]))
        return self.cv2(torch.cat(stages, 1))


class Heads(torch.nn.Module):
    """For each level a branch for the distances to a box's sides, in bins, and one for the classes."""

    def __init__(self, widths, classes, folded, bins):
        super().__init__()
        n = torch.nn
        self.bins = bins
        inner = [max(16, widths[0] // 4, 4 * self.bins), max(widths[0], min(classes, 100))]
        branch = lambda a, b, out: n.Sequential(Conv(a, b, 3, 1, folded), Conv(b, b, 3, 1, folded), n.Conv2d(b, out, 1))
        self.cv2 = n.ModuleList(branch(a, inner[0], 4 * self.bins) for a in widths)
        self.cv3 = n.ModuleList(branch(a, inner[1], classes) for a in widths)
        self.dfl = n.Module()
        self.dfl.conv = n.Conv2d(self.bins, 1, 1, bias=False)

    def forward(self, maps):
        """Distributions `[n, cells, 4 · bins]`, logits `[n, cells, classes]`."""
        flat = lambda branch: torch.cat([b(x).flatten(2) for b, x in zip(branch, maps)], 2).transpose(1, 2)
        return flat(self.cv2), flat(self.cv3)

    def boxes(self, distances, size):
        """Left, top, right, bottom in pixels, `[n, cells, 4]`."""
        cells = [(x + 0.5, y + 0.5, s) for s in (8, 16, 32) for y in range(size[0] // s) for x in range(size[1] // s)]
        x, y, stride = torch.tensor(cells).T
        shares = distances.unflatten(2, (4, self.bins)).softmax(3)
        left, top, right, bottom = (shares @ self.dfl.conv.weight.flatten()).unbind(2)
        return torch.stack([(x - left) * stride, (y - top) * stride, (x + right) * stride, (y + bottom) * stride], 2)


class Yolo(torch.nn.Module):
    """YOLOv8's layers by their numbers, written from the description of the architecture."""

    def __init__(self, widths, depths, classes, folded, bins=16):
        super().__init__()
        a, b, c, d, e = widths
        k, l, m, o = depths
        down = lambda x, y: Conv(x, y, 3, 2, folded)
        block = lambda x, y, depth, shortcut=False: Stages(x, y, depth, shortcut, folded)
        layers = {
            0: down(3, a), 1: down(a, b), 2: block(b, b, k, True), 3: down(b, c), 4: block(c, c, l, True),
            5: down(c, d), 6: block(d, d, m, True), 7: down(d, e), 8: block(e, e, o, True), 9: Pyramid(e, e, folded),
            12: block(d + e, d, k), 15: block(c + d, c, k), 16: down(c, c), 18: block(c + d, d, k),
            19: down(d, d), 21: block(d + e, e, k), 22: Heads([c, d, e], classes, folded, bins),
        }
        self.model = torch.nn.ModuleDict({str(i): layer for i, layer in layers.items()})

    def forward(self, x):
        layer = lambda i, x: self.model[str(i)](x)
        up = lambda x: torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        third = layer(4, layer(3, layer(2, layer(1, layer(0, x)))))
        fourth = layer(6, layer(5, third))
        fifth = layer(9, layer(8, layer(7, fourth)))
        fourth = layer(12, torch.cat([up(fifth), fourth], 1))
        third = layer(15, torch.cat([up(fourth), third], 1))
        fourth = layer(18, torch.cat([layer(16, third), fourth], 1))
        fifth = layer(21, torch.cat([layer(19, fourth), fifth], 1))
        return layer(22, [third, fourth, fifth])


def suppressed(boxes, logits, across):
    """Rows of what is left at a score of 0.25 and an overlap of 0.6, best first; each candidate is its best class."""
    scores, classes = logits.sigmoid().max(1)
    counts = scores >= 0.25
    boxes, scores, classes = boxes[counts], scores[counts], classes[counts]
    groups = torch.zeros_like(classes) if across else classes
    kept = torchvision.ops.batched_nms(boxes, scores, groups, 0.6)[:300]
    return torch.cat([boxes[kept], scores[kept, None], classes[kept, None].float()], 1)


def yolo(folded):
    """A narrow one, 5 classes, on a picture of 64 × 96 (h × w) in a letterbox of 96 × 96."""
    model = Yolo([8, 12, 16, 20, 24], [1, 2, 1, 3], 5, folded).eval()
    # Else all scores are nearly a half.
    gains = {f"model.22.{branch}.{i}.2.weight": 8.0 for branch in ("cv2", "cv3") for i in range(3)}
    made = load(model, gains, ["model.22.dfl.conv.weight"])
    x = torch.full((1, 3, 96, 96), 114 / 255)
    x[0, :, 16:80] = torch.from_numpy(picture(64, 96)).permute(2, 0, 1).float() / 255
    border = torch.tensor([96.0, 64, 96, 64])

    def found(distances, logits, across):
        rows = suppressed(model.model["22"].boxes(distances, (96, 96))[0], logits[0], across)
        rows[:, [1, 3]] -= 16
        rows[:, :4] = torch.minimum(rows[:, :4].clamp(min=0), border)
        return rows.numpy()

    with torch.no_grad():
        distances, logits = model(x)
        arrays = {"distances": distances.reshape(-1)[::7], "logits": logits.reshape(-1)[::7]}
        for name, across in (("found", False), ("across", True)):
            arrays[name] = found(distances, logits, across)
            noise = lambda y: y + 3e-5 * torch.randn_like(y)
            stable = [same(arrays[name], found(noise(distances), noise(logits), across)) for _ in range(5)]
            print(f"yolo: {len(arrays[name])} of {len(logits[0])} boxes, stable {stable}, scores {arrays[name][:, 4].min():.3g} to "
                  f"{arrays[name][:, 4].max():.3g}, classes {np.bincount(arrays[name][:, 5].astype(int))}, logits {logits.std():.3g}, distances {distances.std():.3g}")
    return made, arrays


class Exported(torch.nn.Module):
    """As exports have it: middles, extents and probabilities of the candidates, `[n, 4 + classes, cells]`."""

    def __init__(self, model, size):
        super().__init__()
        self.model = model
        cells = [(x + 0.5, y + 0.5, s) for s in (8, 16, 32) for y in range(size[0] // s) for x in range(size[1] // s)]
        cells = torch.tensor(cells).T
        self.register_buffer("centres", cells[:2])
        self.register_buffer("strides", cells[2:])

    def forward(self, x):
        heads = self.model.model["22"]
        distances, logits = (y.transpose(1, 2) for y in self.model(x))
        n, _, cells = distances.shape
        distances = heads.dfl.conv(distances.view(n, 4, heads.bins, cells).transpose(2, 1).softmax(1)).view(n, 4, cells)
        before, after = distances.chunk(2, 1)
        low, high = self.centres - before, self.centres + after
        boxes = torch.cat([(low + high) / 2, high - low], 1) * self.strides
        return torch.cat([boxes, logits.sigmoid()], 1)


def exported(folder):
    """A tiny one as an ONNX file, with the names of its classes as such files have them."""
    import onnx

    model = Yolo([8, 8, 8, 8, 8], [1, 1, 1, 1], 3, True, bins=4).eval()
    gains = {f"model.22.{branch}.{i}.2.weight": 8.0 for branch in ("cv2", "cv3") for i in range(3)}
    load(model, gains, ["model.22.dfl.conv.weight"])
    x = torch.from_numpy(picture(64, 96)).permute(2, 0, 1)[None].float() / 255
    path = str(folder / "yolo.onnx")
    model = Exported(model, (64, 96)).eval()
    torch.onnx.export(model, (x,), path, input_names=["images"], output_names=["output0"], opset_version=17, dynamo=False)
    file = onnx.load(path)
    onnx.helper.set_model_props(file, {"stride": "32", "names": "{0: 'cat', 1: \"shepherd's dog\", 2: 'a \\\\ b'}"})
    onnx.save(file, path)
    with torch.no_grad():
        output = model(x)
    print(f"exported: scores {output[0, 4:].min():.3g} to {output[0, 4:].max():.3g}, {pathlib.Path(path).stat().st_size} bytes")
    return output.transpose(1, 2).numpy().copy()


def ssdlite():
    """torchvision's, 7 classes with the background: outputs of the heads and what is found."""
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=7
    ).eval()
    # Else all scores are nearly 1.
    gains = {f"head.{head}_head.module_list.{i}.1.weight": 0.25 for head in ("classification", "regression") for i in range(6)}
    shapes = load(model, gains)
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
    makers = {"ssdlite": ssdlite, "yolo": lambda: yolo(False), "yolo_folded": lambda: yolo(True)}
    for name, make in makers.items():
        shapes[name], made = make()
        arrays.update({f"{name}.{k}": np.ascontiguousarray(v, dtype=np.float32) for k, v in made.items()})
    folder = pathlib.Path(folder)
    arrays["exported.output"] = exported(folder)
    (folder / "detectors.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, folder / "detectors.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
