"""References for tests/architectures.rs: torchvision's and timm's networks with weights that both
sides make from a hash of their names, so that only shapes and outputs are kept.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm safetensors
    venv/bin/python scripts/references/architectures.py tests/fixtures
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy
import timm
import torch
import torchvision


def numbers(name, count):
    """`count` numbers from -1 to 1 that depend on the name alone: FNV-1a, then a 32-bit mix of the index."""
    seed = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            seed = np.uint32((seed ^ np.uint32(byte)) * np.uint32(16777619))
        v = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + seed
        v = (v ^ (v >> np.uint32(16))) * np.uint32(0x7FEB352D)
        v = (v ^ (v >> np.uint32(15))) * np.uint32(0x846CA68B)
        v = v ^ (v >> np.uint32(16))
    return (v >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)


def weight(name, shape):
    """He-uniform matrices and kernels; statistics and scales about their usual values."""
    v = numbers(name, int(np.prod(shape))).reshape(shape)
    if len(shape) >= 2 and min(shape[0], int(np.prod(shape[1:]))) > 1 and not name.endswith("layer_scale"):
        fan_in = int(np.prod(shape[1:]))
        return v * np.float32(np.float32(6.0 / fan_in) ** np.float32(0.5))
    if name.endswith(("running_var", "weight", "layer_scale", "gamma")):
        return v * np.float32(0.25) + np.float32(1.0)
    return v * np.float32(0.1)


def narrow_vgg(norm):
    model = torchvision.models.vgg11_bn() if norm else torchvision.models.vgg11()
    cfg = [16, "M", 24, "M", 32, 32, "M", 40, 40, "M", 48, 48, "M"]
    model.features = torchvision.models.vgg.make_layers(cfg, batch_norm=norm)
    model.classifier = torch.nn.Sequential(
        torch.nn.Linear(48 * 49, 64), torch.nn.ReLU(), torch.nn.Dropout(),
        torch.nn.Linear(64, 56), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(56, 10),
    )
    return model


tv = torchvision.models
# Name, network, a layer in the middle, and the names of it in the graph.
MODELS = {
    "resnet18": (lambda: tv.resnet18(num_classes=10), "layer2.1"),
    "resnet50": (lambda: tv.resnet50(num_classes=10), "layer3.0"),
    "resnext50": (lambda: tv.resnext50_32x4d(num_classes=10), "layer2.0"),
    "vgg": (lambda: narrow_vgg(False), None),
    "vgg_bn": (lambda: narrow_vgg(True), None),
    "mobilenet_v2": (lambda: tv.mobilenet_v2(num_classes=10), "features.3"),
    "mobilenet_v3_large": (lambda: tv.mobilenet_v3_large(num_classes=10), "features.5"),
    "mobilenet_v3_small": (lambda: tv.mobilenet_v3_small(num_classes=10), "features.3"),
    "efficientnet_b0": (lambda: tv.efficientnet_b0(num_classes=10), "features.2.1"),
    "densenet121": (lambda: tv.densenet121(num_classes=10), "features.denseblock1.denselayer2"),
    "convnext_tiny": (lambda: tv.convnext_tiny(num_classes=10), "features.1.2"),
    "timm_convnext_atto": (lambda: timm.create_model("convnext_atto", num_classes=10), "stages.1.blocks.0"),
    "timm_resnet26": (lambda: timm.create_model("resnet26", num_classes=10), "layer2.0"),
}


def main(folder):
    shapes, arrays = {}, {}
    picture = torch.from_numpy(numbers("picture", 3 * 96 * 96).reshape(1, 3, 96, 96))
    for name, (make, layer) in MODELS.items():
        model = make().eval()
        state = model.state_dict()
        made = {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
        for k, shape in made.items():
            state[k] = torch.from_numpy(weight(k, shape))
        model.load_state_dict(state)
        kept = {}
        if layer:
            module = model.get_submodule(layer)
            module.register_forward_hook(lambda _, __, y: kept.update(layer=y))
        with torch.no_grad():
            logits = model(picture)
        assert logits.std() > 1e-3 and logits.isfinite().all(), name
        shapes[name] = {"tensors": {k: list(s) for k, s in made.items()}, "layer": layer}
        arrays[f"{name}.logits"] = logits.numpy()
        if layer and not layer.startswith("features.denseblock"):
            # Every seventh number of the feature map, channels last, is enough.
            y = kept["layer"]
            arrays[f"{name}.layer"] = np.ascontiguousarray(y.permute(0, 2, 3, 1).numpy().reshape(-1)[::7])
        print(f"{name}: logits {logits.std():.3g}")
    folder = pathlib.Path(folder)
    (folder / "architectures.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, folder / "architectures.safetensors")


main(sys.argv[1])
