"""References for tests/pipelines.rs: whole runs of diffusers' pipelines, with weights that both sides make from a hash of
their names, and noise of PyTorch's CPU generator.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers safetensors
    venv/bin/python scripts/references/pipelines.py tests/fixtures
"""

import json
import pathlib
import sys

import diffusers
import numpy as np
import safetensors.numpy
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UNet2DConditionModel,
)
from PIL import Image

from latent import config, fill, picture

SIZE = (40, 48)
TOKENS = 5
SEED = 7
VAE = dict(
    block_out_channels=(8, 12, 16),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    layers_per_block=1,
    norm_num_groups=4,
)
COMMON = dict(
    sample_size=8,
    norm_num_groups=4,
    layers_per_block=1,
    block_out_channels=(8, 16),
    attention_head_dim=2,
    cross_attention_dim=12,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)
UNETS = {
    "sd": COMMON,
    "inpaint": dict(COMMON, in_channels=9),
    "sdxl": dict(
        COMMON,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    ),
}
SCHEDULER = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    steps_offset=1,
    timestep_spacing="leading",
)
ZERO_SNR = dict(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
SCHEDULERS = {
    "ddim": (DDIMScheduler, dict(clip_sample=False, set_alpha_to_one=False)),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {}),
    "zero-snr": (DDIMScheduler, dict(clip_sample=False, set_alpha_to_one=False, **ZERO_SNR)),
}
# name: (UNet, scheduler, pipeline, options)
CASES = {
    "text.ddim": ("sd", "ddim", "", dict(steps=4, guidance=7.5)),
    "text.euler": ("sd", "euler", "", dict(steps=4, guidance=7.5)),
    "text.euler-a": ("sd", "euler-a", "", dict(steps=4, guidance=7.5)),
    "text.heun": ("sd", "heun", "", dict(steps=4, guidance=5.0)),
    "text.dpm++2m": ("sd", "dpm++2m", "", dict(steps=20, guidance=7.5)),
    "text.no-guidance": ("sd", "euler", "", dict(steps=3, guidance=1.0)),
    "text.zero-snr": ("sd", "zero-snr", "", dict(steps=4, guidance=7.5, rescale=0.7)),
    "picture.ddim": ("sd", "ddim", "Img2Img", dict(steps=5, guidance=5.0, strength=0.6)),
    "picture.euler": ("sd", "euler", "Img2Img", dict(steps=5, guidance=5.0, strength=0.6)),
    "picture.euler-a": ("sd", "euler-a", "Img2Img", dict(steps=5, guidance=5.0, strength=0.8)),
    "picture.dpm++2m": ("sd", "dpm++2m", "Img2Img", dict(steps=8, guidance=5.0, strength=0.5)),
    "blend.ddim": ("sd", "ddim", "Inpaint", dict(steps=4, guidance=5.0, strength=1.0)),
    "blend.euler": ("sd", "euler", "Inpaint", dict(steps=4, guidance=5.0, strength=0.75)),
    "inpaint.ddim": ("inpaint", "ddim", "Inpaint", dict(steps=4, guidance=5.0, strength=1.0)),
    "inpaint.euler-a": ("inpaint", "euler-a", "Inpaint", dict(steps=4, guidance=5.0, strength=0.75)),
    "sdxl.euler": ("sdxl", "euler", "XL", dict(steps=4, guidance=6.0)),
    "sdxl.ddim": ("sdxl", "ddim", "XL", dict(steps=4, guidance=6.0, original=(64, 80, 4, 8))),
}
CLASSES = {
    "": "StableDiffusionPipeline",
    "Img2Img": "StableDiffusionImg2ImgPipeline",
    "Inpaint": "StableDiffusionInpaintPipeline",
    "XL": "StableDiffusionXLPipeline",
}


def canvas(size=SIZE):
    """A picture of smooth waves and a mask, both also made by the test."""
    y, x = np.mgrid[: size[0], : size[1]]
    channels = [(x * 5 + y * 2) % 256, (x * 3 + y * 5) % 256, (x * y) % 256]
    inside = (x >= 12) & (x < 32) & (y >= 8) & (y < 28)
    return Image.fromarray(np.stack(channels, 2).astype("uint8")), Image.fromarray((inside * 255).astype("uint8"))


def run(unet, vae, case):
    name, (_, schedule, kind, o) = case
    cls, extra = SCHEDULERS[schedule]
    scheduler = cls(**{**SCHEDULER, **extra})
    parts = dict(vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler)
    if kind == "XL":
        parts |= dict(text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
    else:
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe = getattr(diffusers, CLASSES[kind])(**parts)
    pipe.set_progress_bar_config(disable=True)
    width = unet.config.cross_attention_dim
    given = dict(
        prompt_embeds=picture("text", 1, TOKENS, width),
        negative_prompt_embeds=picture("negative", 1, TOKENS, width),
        num_inference_steps=o["steps"],
        guidance_scale=o["guidance"],
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
    )
    if kind in ("", "XL", "Inpaint"):
        given |= dict(height=SIZE[0], width=SIZE[1])
    if kind in ("", "XL"):
        given |= dict(guidance_rescale=o.get("rescale", 0.0))
    if kind == "XL":
        given |= dict(pooled_prompt_embeds=picture("pooled", 1, 16), negative_pooled_prompt_embeds=picture("unpooled", 1, 16))
        if "original" in o:
            given |= dict(original_size=o["original"][:2], crops_coords_top_left=o["original"][2:])
            given |= dict(negative_original_size=o["original"][:2], negative_target_size=SIZE)
            given |= dict(negative_crops_coords_top_left=o["original"][2:], target_size=SIZE)
    if kind in ("Img2Img", "Inpaint"):
        given |= dict(image=canvas()[0], strength=o["strength"])
    if kind == "Inpaint":
        given |= dict(mask_image=canvas()[1])
    seen = {}

    def keep(_, step, timestep, tensors):
        seen["latents"] = tensors["latents"]
        return {}

    image = pipe(**given, callback_on_step_end=keep).images[0]
    latents = seen["latents"][0].permute(1, 2, 0).numpy()
    print(f"{name}: latents {latents.std():.3g}, picture {image.std():.3g}")
    return np.ascontiguousarray(latents), np.ascontiguousarray((image * 255).round().astype("uint8"))


def main(folder):
    vae = AutoencoderKL(**VAE).eval()
    described = {"vae": {"config": config(vae), "tensors": fill(vae)}}
    unets = {}
    for name, options in UNETS.items():
        unets[name] = UNet2DConditionModel(**options).eval()
        described[name] = {"config": config(unets[name]), "tensors": fill(unets[name])}
    arrays, cases = {}, {}
    for case in CASES.items():
        name, (unet, schedule, kind, options) = case
        latents, image = run(unets[unet], vae, case)
        arrays[f"{name}.latents"], arrays[f"{name}.picture"] = latents, image
        cls, extra = SCHEDULERS[schedule]
        # As text: Python writes infinities, which are no JSON.
        scheduler = cls(**{**SCHEDULER, **extra}).to_json_string()
        classes = dict(class_name=CLASSES[kind], scheduler_class=cls.__name__)
        cases[name] = dict(unet=unet, **classes, scheduler=scheduler, **options)
    folder = pathlib.Path(folder)
    text = json.dumps({"parts": described, "cases": cases}, separators=(",", ":"))
    (folder / "pipelines.json").write_text(text + "\n")
    safetensors.numpy.save_file(arrays, folder / "pipelines.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
