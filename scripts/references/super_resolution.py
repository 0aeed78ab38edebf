"""References for tests/super_resolution.rs: diffusers' `LDMSuperResolutionPipeline`, and the `VQModel` alone, with
weights that both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers safetensors
    venv/bin/python scripts/references/super_resolution.py tests/fixtures
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy
import torch
from diffusers import DDIMScheduler, LDMSuperResolutionPipeline, UNet2DModel, VQModel
from PIL import Image

from latent import config, fill, picture
from pipelines import SEED, VAE, canvas

# The pipeline shrinks pictures to multiples of this.
SIZE = (32, 32)
SCHEDULER = dict(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
UNET = dict(
    sample_size=16,
    in_channels=6,
    out_channels=3,
    norm_num_groups=4,
    layers_per_block=1,
    block_out_channels=(8, 16),
    attention_head_dim=8,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
CASES = {
    "ddim": (DDIMScheduler, dict(clip_sample=False), dict(steps=4)),
    "ddim.noisy": (DDIMScheduler, dict(clip_sample=False), dict(steps=4, eta=0.5)),
}


def small():
    whole = np.asarray(canvas()[0])
    return Image.fromarray(whole[: SIZE[0], : SIZE[1]])


def main(folder):
    vqvae = VQModel(**VAE, num_vq_embeddings=21).eval()
    unet = UNet2DModel(**UNET).eval()
    parts = {name: {"config": config(m), "tensors": fill(m)} for name, m in (("unet", unet), ("vqvae", vqvae))}
    arrays, cases = {}, {}
    z = picture("z", 2, 7, 9, 3).permute(0, 3, 1, 2)
    with torch.no_grad():
        arrays["quantised"] = vqvae.quantize(z)[0].permute(0, 2, 3, 1).contiguous().numpy()
        arrays["decoded"] = vqvae.decode(z).sample.permute(0, 2, 3, 1).contiguous().numpy()
    for name, (cls, extra, options) in CASES.items():
        scheduler = cls(**SCHEDULER, **extra)
        pipe = LDMSuperResolutionPipeline(vqvae=vqvae, unet=unet, scheduler=scheduler)
        pipe.set_progress_bar_config(disable=True)
        seen = {}
        decode = vqvae.decode

        def keep(latents):
            seen["latents"] = latents
            return decode(latents)

        vqvae.decode = keep
        # The pipeline does not hand its generator on to the scheduler: all noise is from the one that is always there.
        torch.manual_seed(SEED)
        image = pipe(
            small(),
            num_inference_steps=options["steps"],
            eta=options.get("eta", 0.0),
            output_type="np",
        ).images[0]
        vqvae.decode = decode
        latents = seen["latents"][0].permute(1, 2, 0).numpy()
        print(f"{name}: latents {latents.std():.3g} {latents.shape}, picture {image.std():.3g} {image.shape}")
        arrays[f"{name}.latents"] = np.ascontiguousarray(latents)
        arrays[f"{name}.picture"] = np.ascontiguousarray((image * 255).round().astype("uint8"))
        cases[name] = dict(scheduler_class=cls.__name__, scheduler=scheduler.to_json_string(), **options)
    folder = pathlib.Path(folder)
    text = json.dumps({"parts": parts, "cases": cases}, separators=(",", ":"))
    (folder / "super_resolution.json").write_text(text + "\n")
    safetensors.numpy.save_file(arrays, folder / "super_resolution.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
