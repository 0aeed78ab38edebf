"""References for tests/painting.rs: what `aquatint generate` paints, as diffusers' pipelines paint it from the same words:
a base with its refiner, zero terminal SNR, perturbed-attention guidance, ControlNets that guess. Weights are made from a
hash of their names, noise is that of PyTorch's CPU generator.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers transformers regex safetensors
    venv/bin/python scripts/references/painting.py tests/fixtures
"""

import json
import pathlib
import sys

import diffusers
import numpy as np
import safetensors.numpy
import torch
from diffusers import AutoencoderKL, ControlNetModel, MultiControlNetModel, UNet2DConditionModel
from transformers import CLIPTokenizer

import text
from control import RUN_CONTROLS, control_picture
from latent import config, fill
from pipelines import COMMON, SCHEDULER, SCHEDULERS, SEED, SIZE, VAE, canvas

XL = dict(COMMON, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8)
UNETS = {
    "sd": dict(COMMON, cross_attention_dim=24),
    "sdxl": dict(XL, cross_attention_dim=40, projection_class_embeddings_input_dim=12 + 6 * 8),
    "refiner": dict(XL, cross_attention_dim=16, projection_class_embeddings_input_dim=12 + 5 * 8),
}
PROMPT, NEGATIVE = "a red cat on a wooden table", "blurry"
V = dict(prediction_type="v_prediction")
ZERO_SNR = dict(timestep_spacing="trailing", rescale_betas_zero_snr=True)
# name: (pipeline, UNets, ControlNets, scheduler, more of what the folder says of it, more of what diffusers is told of it,
# arguments of the pipelines, the same as the program's)
CASES = {
    "refined.euler": ("StableDiffusionXLPipeline", ["sdxl", "refiner"], 0, "euler", {}, {}, dict(num_inference_steps=10, guidance_scale=5.0, start=0.7, negative_prompt=NEGATIVE), ["--refiner-start", "0.7"]),
    "refined.ddim": ("StableDiffusionXLPipeline", ["sdxl", "refiner"], 0, "ddim", {}, {}, dict(num_inference_steps=5, guidance_scale=5.0, start=0.8), []),
    "refiner": ("StableDiffusionXLImg2ImgPipeline", ["refiner"], 0, "euler", {}, {}, dict(num_inference_steps=10, guidance_scale=5.0, strength=0.3, negative_prompt=NEGATIVE), []),
    "zero-snr.ddim": ("StableDiffusionPipeline", ["sd"], 0, "ddim", V, ZERO_SNR, dict(num_inference_steps=4, guidance_scale=7.5, guidance_rescale=0.7), ["--zero-snr", "--rescale", "0.7"]),
    "zero-snr.euler": ("StableDiffusionPipeline", ["sd"], 0, "euler", V, ZERO_SNR, dict(num_inference_steps=4, guidance_scale=5.0), ["--zero-snr"]),
    "pag.euler": ("StableDiffusionPAGPipeline", ["sd"], 0, "euler", {}, {}, dict(num_inference_steps=4, guidance_scale=5.0, pag_scale=3.0, negative_prompt=NEGATIVE), ["--pag", "3"]),
    "pag.layers": ("StableDiffusionPAGPipeline", ["sd"], 0, "ddim", {}, {}, dict(num_inference_steps=4, guidance_scale=5.0, pag_scale=3.0, pag_adaptive_scale=0.005, layers=["mid", "up_blocks.1.attentions.1"]), ["--pag", "3", "--pag-adaptive", "0.005", "--pag-layers", "mid,up_blocks.1.attentions.1"]),
    "pag.alone": ("StableDiffusionPAGPipeline", ["sd"], 0, "heun", {}, {}, dict(num_inference_steps=3, guidance_scale=1.0, pag_scale=2.5), ["--pag", "2.5"]),
    "pag.rescale": ("StableDiffusionPAGPipeline", ["sd"], 0, "dpm++2m", {}, {}, dict(num_inference_steps=6, guidance_scale=7.5, pag_scale=2.0, guidance_rescale=0.5, layers=["down"]), ["--pag", "2", "--rescale", "0.5", "--pag-layers", "down"]),
    "pag.sdxl": ("StableDiffusionXLPAGPipeline", ["sdxl"], 0, "euler", {}, {}, dict(num_inference_steps=4, guidance_scale=5.0, pag_scale=3.0, negative_prompt=NEGATIVE), ["--pag", "3"]),
    "pag.picture": ("StableDiffusionPAGImg2ImgPipeline", ["sd"], 0, "ddim", {}, {}, dict(num_inference_steps=5, guidance_scale=5.0, pag_scale=3.0, strength=0.6), ["--pag", "3", "--strength", "0.6"]),
    "pag.control": ("StableDiffusionControlNetPAGPipeline", ["sd"], 1, "euler", {}, {}, dict(num_inference_steps=4, guidance_scale=5.0, pag_scale=3.0), ["--pag", "3"]),
    "guess.euler": ("StableDiffusionControlNetPipeline", ["sd"], 1, "euler", {}, {}, dict(num_inference_steps=4, guidance_scale=4.0, guess_mode=True), ["--guess"]),
    "guess.two": ("StableDiffusionControlNetPipeline", ["sd"], 2, "ddim", {}, {}, dict(num_inference_steps=4, guidance_scale=4.0, guess_mode=True, controlnet_conditioning_scale=[0.8, 1.2]), ["--guess", "--control-scale", "0.8", "--control-scale", "1.2"]),
    "guess.alone": ("StableDiffusionControlNetPipeline", ["sd"], 1, "euler", {}, {}, dict(num_inference_steps=3, guidance_scale=1.0, guess_mode=True), ["--guess"]),
}


def pipe(name, parts, unet, controls, scheduler, layers):
    """A pipeline, and the parts of its folder."""
    given = dict(vae=parts["vae"], unet=parts[unet], scheduler=scheduler)
    xl = "XL" in name
    if xl:
        given |= dict(text_encoder_2=parts["two"], tokenizer_2=parts["tokenizer"], add_watermarker=False)
    if unet != "refiner":
        given |= dict(text_encoder=parts["one"], tokenizer=parts["tokenizer"])
    elif "Img2Img" in name:
        given |= dict(text_encoder=None, tokenizer=None, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
    if not xl:
        given |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    if controls:
        nets = [parts[f"control{i}"] for i in range(controls)]
        given |= dict(controlnet=nets[0] if controls == 1 else MultiControlNetModel(nets))
    if "PAG" in name:
        given |= dict(pag_applied_layers=layers)
    made = getattr(diffusers, name)(**given)
    made.set_progress_bar_config(disable=True)
    return made


def run(name, case, parts):
    class_name, unets, controls, schedule, said, told, o, _ = case
    o = dict(o)
    cls, extra = SCHEDULERS[schedule]

    def scheduler():
        return cls(**{**SCHEDULER, **extra, **said, **told})

    share = o.pop("start", None)
    made = pipe(class_name, parts, unets[0], controls, scheduler(), o.pop("layers", ["mid"]))
    common = dict(prompt=PROMPT, generator=torch.Generator().manual_seed(SEED), **o)
    seen = {}

    def keep(_, step, timestep, tensors):
        seen["latents"] = tensors["latents"]
        return {}

    last = dict(output_type="np", callback_on_step_end=keep)
    size = dict(height=SIZE[0], width=SIZE[1])
    if share is not None:
        latents = made(**common, **size, denoising_end=share, output_type="latent").images
        made = pipe("StableDiffusionXLImg2ImgPipeline", parts, unets[1], 0, scheduler(), None)
        last |= dict(image=latents, denoising_start=share)
    elif "Img2Img" in class_name:
        last |= dict(image=canvas()[0])
    else:
        last |= size
    if controls:
        looks = [control_picture(i) for i in range(controls)]
        last |= dict(image=looks[0] if controls == 1 else looks)
    image = made(**common, **last).images[0]
    latents = seen["latents"][0].permute(1, 2, 0).numpy()
    print(f"{name}: latents {latents.std():.3g}, picture {image.std():.3g}")
    return np.ascontiguousarray(latents), np.ascontiguousarray((image * 255).round().astype("uint8"))


def main(folder):
    folder = pathlib.Path(folder)
    vocab, merges = text.vocabulary()
    parts = {name: UNet2DConditionModel(**options) for name, options in UNETS.items()}
    parts |= {"vae": AutoencoderKL(**VAE)}
    controls = [dict(options, cross_attention_dim=24) for options in RUN_CONTROLS.values() if "addition_embed_type" not in options]
    parts |= {f"control{i}": ControlNetModel(**options) for i, options in enumerate(controls[:2])}
    described = {}
    for name, part in parts.items():
        described[name] = {"config": config(part), "tensors": fill(part.eval())}
    parts |= {name: text.encoder(name, vocab)[0] for name in text.ENCODERS}
    parts["tokenizer"] = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=text.TOKENS, pad_token="!")
    arrays, cases = {}, {}
    for name, case in CASES.items():
        latents, image = run(name, case, parts)
        arrays[f"{name}.latents"], arrays[f"{name}.picture"] = latents, image
        class_name, unets, controls, schedule, said, _, o, args = case
        cls, extra = SCHEDULERS[schedule]
        # As text: Python writes infinities, which are no JSON.
        scheduler = cls(**{**SCHEDULER, **extra, **said}).to_json_string()
        args = ["--steps", str(o["num_inference_steps"]), "--guidance", str(o["guidance_scale"]), "--prompt", PROMPT, *args]
        args += ["--negative", o["negative_prompt"]] if "negative_prompt" in o else []
        classes = dict(class_name=class_name, scheduler_class=cls.__name__)
        cases[name] = dict(**classes, scheduler=scheduler, unets=unets, controls=controls, args=args)
    whole = json.dumps({"parts": described, "cases": cases}, separators=(",", ":"))
    (folder / "painting.json").write_text(whole + "\n")
    safetensors.numpy.save_file(arrays, folder / "painting.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
