"""References for tests/latent.rs: the networks of latent diffusion, as diffusers computes them, with weights that
both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers safetensors
    venv/bin/python scripts/references/latent.py tests/fixtures
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from architectures import numbers, weight

# As the published ones in all but size.
COMMON = dict(sample_size=8, norm_num_groups=4)
UNETS = {
    "sd1": dict(
        COMMON,
        block_out_channels=(8, 16, 16, 16),
        attention_head_dim=2,
        cross_attention_dim=12,
    ),
    "sd2": dict(
        COMMON,
        block_out_channels=(8, 16, 24, 24),
        attention_head_dim=(1, 2, 3, 3),
        cross_attention_dim=20,
        use_linear_projection=True,
        upcast_attention=True,
    ),
    "sdxl": dict(
        COMMON,
        block_out_channels=(8, 16, 24),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2, 3),
        cross_attention_dim=20,
        transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    ),
    "inpaint": dict(
        COMMON,
        in_channels=9,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=12,
    ),
    "upscaler": dict(
        COMMON,
        in_channels=7,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=12,
        only_cross_attention=(True, True, False),
        use_linear_projection=True,
        num_class_embeds=30,
    ),
    "lcm": dict(
        COMMON,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=12,
        time_cond_proj_dim=10,
    ),
}
VAES = {
    "vae": dict(
        block_out_channels=(8, 12, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=4,
    ),
    # A head too wide for one kernel, and no layers around the latents.
    "vae_wide": dict(
        block_out_channels=(8, 320),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ),
}
# Not multiples of what the levels halve.
UNET_SIZE, TOKENS = (10, 13), 7
PICTURE = (40, 24)


def fill(model):
    """Gives every tensor of a module its hashed values; returns their shapes."""
    state = model.state_dict()
    shapes = {k: list(v.shape) for k, v in state.items() if v.is_floating_point()}
    for name, shape in shapes.items():
        state[name] = torch.from_numpy(weight(name, shape))
    model.load_state_dict(state)
    return shapes


def picture(name, *shape):
    return torch.from_numpy(numbers(name, int(np.prod(shape))).reshape(shape))


def last(x):
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


def config(model):
    return {k: v for k, v in dict(model.config).items() if not k.startswith("_")}


def main(folder):
    cases, arrays = {}, {}
    for name, options in UNETS.items():
        model = UNet2DConditionModel(**options).eval()
        shapes = fill(model)
        x = picture("x", 2, model.config.in_channels, *UNET_SIZE)
        text = picture("text", 2, TOKENS, model.config.cross_attention_dim)
        extra = {}
        if name == "sdxl":
            sizes = torch.tensor([[1024.0, 768.0, 0.0, 16.0, 512.0, 512.0]]).repeat(2, 1)
            extra["added_cond_kwargs"] = {"text_embeds": picture("pooled", 2, 16), "time_ids": sizes}
        if name == "lcm":
            extra["timestep_cond"] = picture("guidance", 2, 10)
        if name == "upscaler":
            extra["class_labels"] = torch.tensor([20, 3])
        with torch.no_grad():
            y = model(x, torch.tensor([981.0, 7.0]), text, **extra).sample
        arrays[f"{name}.output"] = last(y)
        cases[name] = {"config": config(model), "tensors": shapes}
        print(f"{name}: {y.std():.3g}")
    for name, options in VAES.items():
        model = AutoencoderKL(**options).eval()
        shapes = fill(model)
        with torch.no_grad():
            moments = model._encode(picture("picture", 1, 3, *PICTURE))
            latent = picture("latent", 1, model.config.latent_channels, 5, 3)
            decoded = model.decode(latent).sample
        arrays[f"{name}.moments"] = last(moments)
        arrays[f"{name}.decoded"] = last(decoded)
        cases[name] = {"config": config(model), "tensors": shapes}
        print(f"{name}: {moments.std():.3g} {decoded.std():.3g}")
    folder = pathlib.Path(folder)
    (folder / "latent.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, folder / "latent.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
