"""References for tests/unet2d.rs: diffusers' `UNet2DModel` with the options of class-conditional and score models, with
weights that both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers safetensors
    venv/bin/python scripts/references/unet2d.py tests/fixtures
"""

import json
import pathlib
import sys

import safetensors.numpy
import torch
from diffusers import UNet2DModel

from latent import config, fill, picture

COMMON = dict(sample_size=16, norm_num_groups=4, layers_per_block=1, attention_head_dim=8)
NCSNPP = dict(
    sample_size=16,
    norm_num_groups=None,
    norm_eps=1e-6,
    attention_head_dim=None,
    mid_block_scale_factor=2**0.5,
    time_embedding_type="fourier",
)
NETWORKS = {
    # As the published consistency models.
    "scale-shift": dict(
        COMMON,
        block_out_channels=(8, 16, 24),
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=4,
        num_class_embeds=5,
    ),
    # Score models are told the logarithm of the noise, and give noise over its level.
    "fourier": dict(
        COMMON,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        time_embedding_type="fourier",
    ),
    # As the published NCSN++, in all but size.
    "ncsnpp": dict(
        NCSNPP,
        layers_per_block=2,
        block_out_channels=(32, 32, 64),
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
    ),
    # Channels and layers that are no multiples of each other, and time that scales.
    "odd-skips": dict(
        NCSNPP,
        layers_per_block=3,
        block_out_channels=(8, 12, 20),
        down_block_types=("SkipDownBlock2D",) * 3,
        up_block_types=("SkipUpBlock2D",) * 3,
        resnet_time_scale_shift="scale_shift",
        add_attention=False,
        center_input_sample=True,
    ),
    "attending-skips": dict(
        NCSNPP,
        layers_per_block=1,
        block_out_channels=(32, 96),
        down_block_types=("AttnSkipDownBlock2D",) * 2,
        up_block_types=("AttnSkipUpBlock2D",) * 2,
        attention_head_dim=16,
        time_embedding_type="positional",
        mid_block_type=None,
    ),
    "some-skips": dict(
        COMMON,
        block_out_channels=(8, 16, 16),
        down_block_types=("SkipDownBlock2D", "DownBlock2D", "SkipDownBlock2D"),
        up_block_types=("UpBlock2D", "SkipUpBlock2D", "SkipUpBlock2D"),
        mid_block_scale_factor=2**0.5,
    ),
    "one-channel": dict(
        COMMON,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("AttnDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "SkipUpBlock2D"),
        time_embedding_type="fourier",
        mid_block_scale_factor=2**0.5,
    ),
}


def main(folder):
    arrays, described = {}, {}
    for name, options in NETWORKS.items():
        model = UNet2DModel(**options).eval()
        times = [0.02, 230.0] if model.config.time_embedding_type == "fourier" else [3.0, 871.0]
        described[name] = {"config": config(model), "tensors": fill(model), "times": times}
        x = picture("x", 2, 12, 16, model.config.in_channels).permute(0, 3, 1, 2)
        labels = torch.tensor([4, 1]) if "num_class_embeds" in options else None
        with torch.no_grad():
            y = model(x, torch.tensor(times), labels).sample
        print(f"{name}: {[part.std().item() for part in y]}")
        arrays[name] = y.permute(0, 2, 3, 1).contiguous().numpy()
    folder = pathlib.Path(folder)
    (folder / "unet2d.json").write_text(json.dumps(described, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, folder / "unet2d.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
