"""References for src/bench/: published networks at their full size, in float64, with weights and inputs that both sides
make from a hash of their names. A file holds the shapes of the weights and a few hundred numbers of the output.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers transformers safetensors
    venv/bin/python scripts/references/bench.py src/bench/workloads/references [NAME…]

The UNet of Stable Diffusion takes 8 GB in float64.
"""

import json
import pathlib
import sys

import diffusers
import numpy as np
import torch
import torchvision
import transformers

from architectures import RRDBNet, numbers, weight

KEPT = 256


def fill(model, gains, dtype=torch.float64):
    """Gives a module its hashed weights, one at a time; returns lines of name and shape."""
    lines = []
    tensors = [(m, n, t) for m, module in model.named_modules() for d in (module._parameters, module._buffers) for n, t in d.items()]
    for path, leaf, tensor in tensors:
        name = f"{path}.{leaf}" if path else leaf
        if tensor is None or not tensor.is_floating_point() or leaf in model.get_submodule(path)._non_persistent_buffers_set:
            continue
        shape = tuple(tensor.shape)
        lines.append(f"{name} {'x'.join(map(str, shape))}")
        gain = next((g for end, g in gains.items() if name.endswith(end)), 1.0)
        values = torch.from_numpy(weight(name, shape) * np.float32(gain)).to(dtype)
        module = model.get_submodule(path)
        if leaf in module._parameters:
            module._parameters[leaf] = torch.nn.Parameter(values, requires_grad=False)
        else:
            module._buffers[leaf] = values
    return lines


def maps(name, *shape):
    """Feature maps whose numbers come in the order n, h, w, c."""
    return torch.from_numpy(numbers(name, int(np.prod(shape))).reshape(shape)).double().permute(0, 3, 1, 2)


def rows(name, *shape):
    return torch.from_numpy(numbers(name, int(np.prod(shape))).reshape(shape)).double()


def last(x):
    return x.permute(0, 2, 3, 1)


def pictures(make, side, gains=None):
    """A network that reads one picture."""

    def case():
        model = make().eval()
        lines = fill(model, gains or {})
        y = model(maps("x", 1, side, side, 3))
        return lines, {"x": [1, side, side, 3]}, {"logits": y} if y.dim() == 2 else {"picture": last(y)}

    return f"torchvision {torchvision.__version__}", {}, gains or {}, case


def ssdlite():
    gains = {f"head.{head}_head.module_list.{i}.1.weight": 0.25 for head in ("classification", "regression") for i in range(6)}

    def case():
        model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
        lines = fill(model, gains)
        x = maps("x", 1, 320, 320, 3)
        features = list(model.backbone(x).values())
        heads = model.head(features)
        images = torchvision.models.detection.image_list.ImageList(x, [(320, 320)])
        anchors = model.anchor_generator(images, features)[0].double()
        boxes = model.box_coder.decode_single(heads["bbox_regression"][0], anchors)
        # Cut at the border, as what is found is.
        return lines, {"x": [1, 320, 320, 3]}, {"boxes": boxes[None].clamp(0, 320), "scores": heads["cls_logits"].softmax(2)}

    return f"torchvision {torchvision.__version__}", {}, gains, case


def rrdb():
    source, _, _, case = pictures(lambda: RRDBNet(64, 6, 32, 4), 64)
    return "ESRGAN's generator with 6 blocks, written out in PyTorch", {}, {}, case


def config(model):
    return {k: v for k, v in dict(model.config).items() if not k.startswith("_")}


def ddpm():
    # google/ddpm-cifar10-32
    model = diffusers.UNet2DModel(
        sample_size=32, block_out_channels=(128, 256, 256, 256), layers_per_block=2, downsample_padding=0,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
    ).eval()

    def case():
        lines = fill(model, {})
        y = model(maps("x", 1, 32, 32, 3), torch.tensor([421.0], dtype=torch.float64)).sample
        return lines, {"x": [1, 32, 32, 3]}, {"y": last(y)}

    return f"diffusers {diffusers.__version__}", config(model), {}, case


def unet(side):
    # stable-diffusion-v1-5
    def case():
        with torch.device("meta"):
            model = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()
        lines = fill(model, {})
        y = model(maps("x", 1, side, side, 4), torch.tensor([421.0], dtype=torch.float64), rows("text", 1, 77, 768)).sample
        return lines, {"x": [1, side, side, 4], "text": [1, 77, 768]}, {"y": last(y)}

    with torch.device("meta"):
        made = config(diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768))
    return f"diffusers {diffusers.__version__}", made, {}, case


def decoder():
    model = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()

    def case():
        lines = fill(model, {})
        # As pipelines do it: pictures are decoded from latents over the scaling factor.
        y = model.decode(maps("x", 1, 32, 32, 4) / model.config.scaling_factor).sample
        keep = [line for line in lines if line.startswith(("decoder.", "post_quant_conv."))]
        return keep, {"x": [1, 32, 32, 4]}, {"y": last(y)}

    return f"diffusers {diffusers.__version__}", config(model), {}, case


def text():
    settings = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
        max_position_embeddings=77, hidden_act="quick_gelu", attn_implementation="eager",
    )
    model = transformers.CLIPTextModel(settings).eval()

    def case():
        lines = fill_text(model)
        tokens = torch.tensor([TOKENS + [49407] * (77 - len(TOKENS))])
        y = model(tokens).last_hidden_state
        return lines, {}, {"y": y}

    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
            "max_position_embeddings", "hidden_act", "layer_norm_eps", "eos_token_id", "projection_dim")
    return f"transformers {transformers.__version__}", {k: v for k, v in settings.to_dict().items() if k in kept}, {}, case


# "a watercolour of a lighthouse" as CLIP's tokens, more or less; any will do.
TOKENS = [49406, 320, 14211, 539, 320, 12713, 49407]


def fill_text(model):
    """As checkpoints call them: with text_model. in front."""
    lines = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            continue
        full = name if name.startswith("text_model.") else f"text_model.{name}"
        shape = tuple(tensor.shape)
        lines.append(f"{full} {'x'.join(map(str, shape))}")
        with torch.no_grad():
            tensor.data = torch.from_numpy(weight(full, shape)).double()
    return ["text_model." + line.removeprefix("text_model.") for line in lines]


def sample(y):
    """Numbers of an output by their places, and what its numbers are like."""
    assert y.isfinite().all()
    flat = y.reshape(-1)
    at = np.unique(np.random.default_rng(7).integers(0, flat.numel(), KEPT))
    values = [float(np.float32(v)) for v in flat[torch.from_numpy(at)]]
    largest, rms = float(flat.abs().max()), float(flat.square().mean().sqrt())
    return {"shape": list(y.shape), "largest": largest, "rms": rms, "at": at.tolist(), "values": values}


tv = torchvision.models
CASES = {
    "resnet50": lambda: pictures(tv.resnet50, 224, {"bn3.weight": 0.25}),
    "mobilenet_v2": lambda: pictures(tv.mobilenet_v2, 224),
    "efficientnet_b0": lambda: pictures(tv.efficientnet_b0, 224),
    "ssdlite": ssdlite,
    "rrdb": rrdb,
    "ddpm": ddpm,
    "text": text,
    "decoder_32": decoder,
    "unet_32": lambda: unet(32),
    "unet_64": lambda: unet(64),
}


def main(folder, names):
    for name in names or CASES:
        source, settings, gains, case = CASES[name]()
        with torch.no_grad():
            tensors, inputs, outputs = case()
        reference = {
            "source": f"{source}, float64",
            "config": settings,
            "inputs": inputs,
            "outputs": {output: sample(y) for output, y in outputs.items()},
            "gains": gains,
            "tensors": tensors,
        }
        if name == "text":
            reference["tokens"] = TOKENS
        print(f"{name}: {len(tensors)} tensors", [(o["shape"], o["rms"], o["largest"]) for o in reference["outputs"].values()])
        (pathlib.Path(folder) / f"{name}.json").write_text(json.dumps(reference, separators=(",", ":")).replace('"tensors":', '\n"tensors":') + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
