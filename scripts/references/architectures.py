"""References for tests/architectures.rs: networks with weights that both
sides make from a hash of their names, so that only shapes and outputs are kept.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm safetensors
    venv/bin/python scripts/references/architectures.py tests/fixtures
"""

import functools
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


def timm_vgg():
    return timm.models.vgg.VGG(cfg=[16, "M", 24, "M", 32, 32, "M"], num_classes=10, mlp_ratio=0.02)


def timm_densenet():
    return timm.models.densenet.DenseNet(growth_rate=8, block_config=(2, 3, 2), num_classes=10)


def timm_resnet(stem, **options):
    """Narrow; what the options do is what tells timm's variants apart."""
    resnet = timm.models.resnet
    options["block_args"] = {"attn_layer": options.pop("attention", None)}
    return resnet.ResNet(resnet.Bottleneck, layers=(1, 2, 1, 1), channels=(16, 24, 32, 40), stem_width=16, stem_type=stem, num_classes=10, **options)


def rs_attention():
    return functools.partial(timm.layers.get_attn("se"), rd_ratio=0.25)


class DoubleConv(torch.nn.Module):
    def __init__(self, a, b):
        super().__init__()
        n = torch.nn
        self.double_conv = n.Sequential(
            n.Conv2d(a, b, 3, padding=1, bias=False), n.BatchNorm2d(b), n.ReLU(),
            n.Conv2d(b, b, 3, padding=1, bias=False), n.BatchNorm2d(b), n.ReLU(),
        )

    def forward(self, x):
        return self.double_conv(x)


class UNet(torch.nn.Module):
    """A U-Net with the module names of milesial's Pytorch-UNet."""

    def __init__(self, widths, classes, transposed):
        super().__init__()
        n = torch.nn
        self.inc = DoubleConv(3, widths[0])
        for i in range(1, len(widths)):
            down = n.Module()
            down.maxpool_conv = n.Sequential(n.MaxPool2d(2), DoubleConv(widths[i - 1], widths[i]))
            self.add_module(f"down{i}", down)
        self.levels = len(widths) - 1
        below = widths[-1]
        for i, width in enumerate(reversed(widths[:-1]), 1):
            up = n.Module()
            up.up = n.ConvTranspose2d(below, width, 2, 2) if transposed else n.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            up.conv = DoubleConv(2 * width if transposed else below + width, width)
            self.add_module(f"up{i}", up)
            below = width
        self.outc = n.Module()
        self.outc.conv = n.Conv2d(below, classes, 1)

    def forward(self, x):
        skips = [self.inc(x)]
        for i in range(1, self.levels + 1):
            skips.append(self.get_submodule(f"down{i}").maxpool_conv(skips[-1]))
        x = skips.pop()
        for i in range(1, self.levels + 1):
            up = self.get_submodule(f"up{i}")
            x = up.conv(torch.cat([skips.pop(), up.up(x)], 1))
        return self.outc.conv(x)


class IBlock(torch.nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        n = torch.nn
        self.bn1, self.conv1, self.bn2 = n.BatchNorm2d(a), n.Conv2d(a, b, 3, 1, 1, bias=False), n.BatchNorm2d(b)
        self.prelu, self.conv2, self.bn3 = n.PReLU(b), n.Conv2d(b, b, 3, stride, 1, bias=False), n.BatchNorm2d(b)
        self.downsample = None
        if stride != 1 or a != b:
            self.downsample = n.Sequential(n.Conv2d(a, b, 1, stride, bias=False), n.BatchNorm2d(b))

    def forward(self, x):
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(torch.nn.Module):
    """ArcFace's residual network with the module names of insightface."""

    def __init__(self, depths, widths, features):
        super().__init__()
        n = torch.nn
        self.conv1, self.bn1, self.prelu = n.Conv2d(3, widths[0], 3, 1, 1, bias=False), n.BatchNorm2d(widths[0]), n.PReLU(widths[0])
        a = widths[0]
        for i, (depth, b) in enumerate(zip(depths, widths), 1):
            blocks = [IBlock(a if k == 0 else b, b, 2 if k == 0 else 1) for k in range(depth)]
            self.add_module(f"layer{i}", n.Sequential(*blocks))
            a = b
        self.bn2, self.fc, self.features = n.BatchNorm2d(a), n.Linear(a * 49, features), n.BatchNorm1d(features)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


class Dense(torch.nn.Module):
    def __init__(self, width, grow):
        super().__init__()
        for j in range(1, 6):
            self.add_module(f"conv{j}", torch.nn.Conv2d(width + (j - 1) * grow, grow if j < 5 else width, 3, 1, 1))

    def forward(self, x):
        known = [x]
        for j in range(1, 5):
            known.append(torch.nn.functional.leaky_relu(self.get_submodule(f"conv{j}")(torch.cat(known, 1)), 0.2))
        return self.conv5(torch.cat(known, 1)) * 0.2 + x


class RRDB(torch.nn.Module):
    def __init__(self, width, grow):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = Dense(width, grow), Dense(width, grow), Dense(width, grow)

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(torch.nn.Module):
    """ESRGAN's generator with the module names of BasicSR."""

    def __init__(self, width, blocks, grow, scale):
        super().__init__()
        conv = lambda a, b: torch.nn.Conv2d(a, b, 3, 1, 1)
        self.scale = scale
        self.conv_first = conv(3 if scale == 4 else 12, width)
        self.body = torch.nn.Sequential(*[RRDB(width, grow) for _ in range(blocks)])
        self.conv_body, self.conv_up1, self.conv_up2 = conv(width, width), conv(width, width), conv(width, width)
        self.conv_hr, self.conv_last = conv(width, width), conv(width, 3)

    def forward(self, x):
        f = torch.nn.functional
        if self.scale == 2:
            x = f.pixel_unshuffle(x, 2)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for up in (self.conv_up1, self.conv_up2):
            x = f.leaky_relu(up(f.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(f.leaky_relu(self.conv_hr(x), 0.2))


# A layer in the middle of each.
TIMM_MOBILE = {
    "efficientnet_b0": "blocks.2.1",
    "tf_efficientnet_b0": "blocks.2.1",
    "efficientnet_lite0": "blocks.2.1",
    "tf_efficientnetv2_b0": "blocks.1.1",
    "mobilenetv2_050": "blocks.2.1",
    "mobilenetv3_large_100": "blocks.2.1",
    "mobilenetv3_small_100": "blocks.2.1",
    "tf_mobilenetv3_small_075": "blocks.2.1",
    "tf_mobilenetv3_small_minimal_100": "blocks.2.1",
}

tv = torchvision.models
# Name, network, and a layer in the middle. Those after timm's are written out above.
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
    "timm_vgg": (timm_vgg, None),
    "timm_densenet": (timm_densenet, "features.denseblock1.denselayer2"),
    "timm_resnet_d": (lambda: timm_resnet("deep", avg_down=True), "layer2.0"),
    "timm_seresnext_t": (lambda: timm_resnet("deep_tiered", avg_down=True, cardinality=8, base_width=16, attention="se"), "layer2.0"),
    "timm_resnet_rs": (lambda: timm_resnet("deep", avg_down=True, replace_stem_pool=True, attention=rs_attention()), "layer2.0"),
    "timm_senet": (lambda: timm_resnet("deep", block_reduce_first=2, down_kernel_size=3, attention="se"), "layer2.0"),
    **{f"timm_{name}": (functools.partial(timm.create_model, name, num_classes=10), layer) for name, layer in TIMM_MOBILE.items()},
    "unet": (lambda: UNet([8, 12, 16, 20, 24], 3, True), None),
    "unet_bilinear": (lambda: UNet([8, 12, 16, 20, 24], 1, False), None),
    "iresnet": (lambda: IResNet([2, 2, 2, 1], [16, 24, 32, 40], 64), "layer2.1"),
    "rrdb": (lambda: RRDBNet(16, 2, 8, 4), None),
    "rrdb_x2": (lambda: RRDBNet(16, 1, 8, 2), None),
}


def main(folder):
    shapes, arrays = {}, {}
    for name, (make, layer) in MODELS.items():
        model = make().eval()
        state = model.state_dict()
        made = {k: tuple(v.shape) for k, v in state.items() if v.is_floating_point()}
        for k, shape in made.items():
            state[k] = torch.from_numpy(weight(k, shape))
        model.load_state_dict(state)
        timms = name.startswith("timm_") and name not in ("timm_convnext_atto", "timm_resnet26")
        # Odd sides tell where the odd line goes.
        side = 112 if name == "iresnet" else 32 if name.startswith("rrdb") else 75 if timms else 96
        picture = torch.from_numpy(numbers("picture", 3 * side * side).reshape(1, 3, side, side))
        kept = {}
        if layer:
            module = model.get_submodule(layer)
            module.register_forward_hook(lambda _, __, y: kept.update(layer=y))
        with torch.no_grad():
            output = model(picture)
        assert output.std() > 1e-3 and output.isfinite().all(), name
        shapes[name] = {"tensors": {k: list(s) for k, s in made.items()}, "layer": layer, "side": side}
        if name[5:] in TIMM_MOBILE:
            shapes[name]["architecture"] = name[5:]
        # Feature maps channels last; of large outputs every seventh number is enough.
        output = output.permute(0, 2, 3, 1) if output.dim() == 4 else output
        thin = 7 if output.numel() > 1000 else 1
        arrays[f"{name}.output"] = np.ascontiguousarray(output.numpy().reshape(-1)[::thin])
        if layer and not layer.startswith("features.denseblock"):
            # Every seventh number of the feature map, channels last, is enough.
            y = kept["layer"]
            arrays[f"{name}.layer"] = np.ascontiguousarray(y.permute(0, 2, 3, 1).numpy().reshape(-1)[::7])
        print(f"{name}: output {output.std():.3g}")
    folder = pathlib.Path(folder)
    (folder / "architectures.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, folder / "architectures.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
