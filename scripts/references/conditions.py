"""References for tests/conditions.rs: diffusers' pipelines whose networks are told more than a text (the x4 upscaler,
SDXL's refiner), and runs that go on where others ended. Weights and noise are those of pipelines.py.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers safetensors
    venv/bin/python scripts/references/conditions.py tests/fixtures
"""

import json
import pathlib
import sys

import diffusers
import numpy as np
import safetensors.numpy
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image

from latent import config, fill, picture
from pipelines import COMMON, SCHEDULER, SCHEDULERS, SEED, SIZE, TOKENS, UNETS, VAE, canvas

SMALL = (20, 24)
# The smaller size of runs that go on at the larger one.
FIRST = (24, 32)
UNETS = {
    "sd": UNETS["sd"],
    "sdxl": UNETS["sdxl"],
    "upscaler": dict(
        COMMON,
        in_channels=7,
        num_class_embeds=1000,
        use_linear_projection=True,
        only_cross_attention=(True, False),
    ),
    "refiner": dict(
        COMMON,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 5 * 8,
    ),
}
V = dict(prediction_type="v_prediction", beta_start=0.0001, beta_end=0.02)
# name: (kind, UNets, scheduler, its options, the run's options)
CASES = {
    "upscale.ddim": ("upscale", ["upscaler"], "ddim", V, dict(steps=4, guidance=7.5, noise_level=20)),
    "upscale.euler-a": ("upscale", ["upscaler"], "euler-a", V, dict(steps=4, guidance=1.0, noise_level=130)),
    "refiner.euler": ("refiner", ["refiner"], "euler", {}, dict(steps=5, guidance=5.0, strength=0.6)),
    "refiner.ddim": ("refiner", ["refiner"], "ddim", {}, dict(steps=5, guidance=5.0, strength=0.8, aesthetic=(7.5, 1.0))),
    "ensemble.euler": ("ensemble", ["sdxl", "refiner"], "euler", {}, dict(steps=10, guidance=5.0, share=0.7)),
    "ensemble.ddim": ("ensemble", ["sdxl", "refiner"], "ddim", {}, dict(steps=8, guidance=5.0, share=0.6)),
    "ensemble.heun": ("ensemble", ["sdxl", "refiner"], "heun", {}, dict(steps=5, guidance=5.0, share=0.5)),
    "larger.bilinear": ("larger", ["sd"], "euler-a", {}, dict(steps=4, guidance=5.0, strength=0.6, mode="bilinear")),
    "larger.bicubic": ("larger", ["sd"], "ddim", {}, dict(steps=4, guidance=5.0, strength=0.6, mode="bicubic")),
    "larger.nearest": ("larger", ["sd"], "dpm++2m", {}, dict(steps=4, guidance=5.0, strength=0.8, mode="nearest")),
    "between.euler": ("between", ["sd"], "euler", {}, dict(steps=4, guidance=5.0, share=0.3)),
}
OTHER_SEED = 8
CLASSES = {
    "upscale": "StableDiffusionUpscalePipeline",
    "refiner": "StableDiffusionXLImg2ImgPipeline",
    "ensemble": "StableDiffusionXLPipeline",
    "larger": "StableDiffusionPipeline",
    "between": "StableDiffusionPipeline",
}


def slerp(share, low, high):
    """Along the arc between two tensors of noise, column by column of each channel, as A1111 has it."""
    dot = (low / low.norm(dim=2, keepdim=True) * high / high.norm(dim=2, keepdim=True)).sum(2, keepdim=True)
    angle = dot.acos()
    return (torch.sin((1 - share) * angle) * low + torch.sin(share * angle) * high) / torch.sin(angle)


def pipe(name, vae, unet, scheduler):
    parts = dict(vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler)
    if "XL" in name:
        parts |= dict(text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
        if "Img2Img" in name:
            parts |= dict(requires_aesthetics_score=True)
    elif "Upscale" in name:
        parts |= dict(low_res_scheduler=low_res_scheduler())
    else:
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    made = getattr(diffusers, name)(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def low_res_scheduler():
    return DDPMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear")


def small():
    """A corner of the canvas."""
    return Image.fromarray(np.asarray(canvas()[0])[: SMALL[0], : SMALL[1]])


def run(vae, unets, case):
    name, (kind, _, schedule, more, o) = case
    cls, extra = SCHEDULERS[schedule]

    def scheduler():
        return cls(**{**SCHEDULER, **extra, **more})

    width = unets[0].config.cross_attention_dim
    text = dict(
        prompt_embeds=picture("text", 1, TOKENS, width),
        negative_prompt_embeds=picture("negative", 1, TOKENS, width),
        num_inference_steps=o["steps"],
        guidance_scale=o["guidance"],
        output_type="np",
    )
    pooled = dict(pooled_prompt_embeds=picture("pooled", 1, 16), negative_pooled_prompt_embeds=picture("unpooled", 1, 16))
    size = dict(height=SIZE[0], width=SIZE[1])
    generator = torch.Generator().manual_seed(SEED)
    first = pipe(CLASSES[kind], vae, unets[0], scheduler())
    seen = {}

    def keep(_, step, timestep, tensors):
        seen["latents"] = tensors["latents"]
        return {}

    last = dict(callback_on_step_end=keep)
    if kind == "upscale":
        def keep_old(step, timestep, latents):
            seen["latents"] = latents

        last = dict(callback=keep_old)
        last |= dict(image=small(), noise_level=o["noise_level"], generator=generator)
    elif kind == "refiner":
        last |= dict(image=canvas()[0], strength=o["strength"], generator=generator, **pooled)
        good, bad = o.get("aesthetic", (6.0, 2.5))
        last |= dict(aesthetic_score=good, negative_aesthetic_score=bad)
    elif kind == "ensemble":
        half = text | dict(output_type="latent")
        latents = first(**half, **size, **pooled, generator=generator, denoising_end=o["share"]).images
        first = pipe("StableDiffusionXLImg2ImgPipeline", vae, unets[1], scheduler())
        # As many pixels as the base was told of.
        last |= dict(image=latents, denoising_start=o["share"], generator=generator, **pooled)
    elif kind == "larger":
        half = text | dict(output_type="latent")
        side = dict(height=FIRST[0], width=FIRST[1])
        latents = first(**half, **side, generator=generator).images
        at = dict(mode=o["mode"]) | ({} if o["mode"] == "nearest" else dict(align_corners=False))
        latents = torch.nn.functional.interpolate(latents, (SIZE[0] // 4, SIZE[1] // 4), **at)
        first = pipe("StableDiffusionImg2ImgPipeline", vae, unets[0], scheduler())
        # The second run has noise of its own.
        last |= dict(image=latents, strength=o["strength"], generator=torch.Generator().manual_seed(SEED))
    elif kind == "between":
        shape = (1, 4, SIZE[0] // 4, SIZE[1] // 4)
        low, high = (torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in (SEED, OTHER_SEED))
        last |= dict(latents=slerp(o["share"], low, high), **size)
    image = first(**text, **last).images[0]
    latents = seen["latents"][0].permute(1, 2, 0).numpy()
    print(f"{name}: latents {latents.std():.3g} {latents.shape}, picture {image.std():.3g} {image.shape}")
    return np.ascontiguousarray(latents), np.ascontiguousarray((image * 255).round().astype("uint8"))


def main(folder):
    vaes = {"vae": {}, "upscaler.vae": dict(scaling_factor=0.08333)}
    vaes = {name: AutoencoderKL(**VAE, **more).eval() for name, more in vaes.items()}
    described = {name: {"config": config(vae), "tensors": fill(vae)} for name, vae in vaes.items()}
    unets = {}
    for name, options in UNETS.items():
        unets[name] = UNet2DConditionModel(**options).eval()
        described[name] = {"config": config(unets[name]), "tensors": fill(unets[name])}
    arrays, cases = {}, {}
    for case in CASES.items():
        name, (kind, names, schedule, more, options) = case
        vae = "upscaler.vae" if kind == "upscale" else "vae"
        latents, image = run(vaes[vae], [unets[name] for name in names], case)
        arrays[f"{name}.latents"], arrays[f"{name}.picture"] = latents, image
        cls, extra = SCHEDULERS[schedule]
        # As text: Python writes infinities, which are no JSON.
        scheduler = cls(**{**SCHEDULER, **extra, **more}).to_json_string()
        described_case = dict(kind=kind, vae=vae, unets=names, scheduler_class=cls.__name__, scheduler=scheduler)
        cases[name] = dict(class_name=CLASSES[kind], **described_case, **options)
    folder = pathlib.Path(folder)
    whole = {"parts": described, "cases": cases, "low_res_scheduler": low_res_scheduler().to_json_string()}
    (folder / "conditions.json").write_text(json.dumps(whole, separators=(",", ":")) + "\n")
    safetensors.numpy.save_file(arrays, folder / "conditions.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
