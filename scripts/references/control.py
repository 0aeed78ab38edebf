"""References for tests/control/: ControlNets, UNets with their residuals, tiny autoencoders and whole runs of
diffusers' pipelines with them, with weights that both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers safetensors
    venv/bin/python scripts/references/control.py tests/fixtures
"""

import json
import pathlib
import sys

import diffusers
import numpy as np
import safetensors.numpy
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, MultiControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from PIL import Image

import latent
import ldm
import pipelines
from latent import TOKENS, config, fill, picture
from pipelines import SCHEDULER, SCHEDULERS, SEED, SIZE, canvas

# Odd on every level. At 7 × 5 a group norm of the UNet of "small" divides by next to nothing: PyTorch in f32 is 3e-5
# from itself in f64 there, 2e-6 here.
UNET_SIZE = (5, 7)
# Those of latent.py's UNets that a ControlNet has too.
SHARED = [
    "block_out_channels",
    "attention_head_dim",
    "cross_attention_dim",
    "norm_num_groups",
    "use_linear_projection",
    "upcast_attention",
    "down_block_types",
    "transformer_layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "layers_per_block",
]


def shared(unet):
    return {name: unet[name] for name in SHARED if name in unet}


# name: (UNet, options)
CONTROLS = {
    "sd1": ("sd1", dict(conditioning_embedding_out_channels=(4, 6, 8, 12))),
    "sd2": ("sd2", dict(conditioning_embedding_out_channels=(4, 6), controlnet_conditioning_channel_order="bgr")),
    "sdxl": ("sdxl", dict(conditioning_embedding_out_channels=(4, 6, 8))),
    # As the small ones for SDXL: no transformers at all.
    "small": (
        "sdxl",
        dict(
            conditioning_embedding_out_channels=(4, 6, 8),
            down_block_types=("DownBlock2D",) * 3,
            mid_block_type="UNetMidBlock2D",
            transformer_layers_per_block=(0, 0, 0),
        ),
    ),
    "pooled": ("sd1", dict(conditioning_embedding_out_channels=(4, 6), global_pool_conditions=True)),
}
RUN = dict(conditioning_embedding_out_channels=(4, 6, 8))
RUN_CONTROLS = {
    "run.sd": dict(shared(pipelines.UNETS["sd"]), **RUN),
    "run.sdxl": dict(shared(pipelines.UNETS["sdxl"]), **RUN),
    "run.pooled": dict(shared(pipelines.UNETS["sd"]), **RUN, global_pool_conditions=True),
}
TINIES = {
    "tiny": dict(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(12, 12, 12, 12),
    ),
    "tiny_wide": dict(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1),
        latent_channels=16,
        latent_magnitude=2.5,
        latent_shift=0.4,
    ),
    # As deep as the autoencoder of the runs.
    "run.tiny": dict(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ),
}
PARTIAL = [dict(control="run.sd", scale=0.8, start=0.25, end=0.75)]
TWO = [dict(control="run.sd", scale=0.8, start=0.0, end=0.5), dict(control="run.sd", scale=-0.5, start=0.5, end=1.0)]
XL = [dict(control="run.sdxl", scale=0.8, start=0.25, end=0.75)]
POOLED = [dict(control="run.pooled", scale=0.8, start=0.0, end=0.75)]
# name: (UNet, autoencoder, scheduler, pipeline, options)
CASES = {
    "text.euler": ("sd", "vae", "euler", "ControlNet", dict(steps=4, guidance=7.5, controls=PARTIAL)),
    "text.heun": ("sd", "vae", "heun", "ControlNet", dict(steps=4, guidance=5.0, controls=PARTIAL)),
    "text.no-guidance": ("sd", "vae", "euler", "ControlNet", dict(steps=4, guidance=1.0, controls=PARTIAL)),
    "text.two": ("sd", "vae", "euler", "ControlNet", dict(steps=4, guidance=7.5, controls=TWO)),
    "text.pooled": ("sd", "vae", "ddim", "ControlNet", dict(steps=4, guidance=7.5, controls=POOLED)),
    "picture.ddim": ("sd", "vae", "ddim", "ControlNetImg2Img", dict(steps=5, guidance=5.0, strength=0.8, controls=PARTIAL)),
    "blend.euler": ("sd", "vae", "euler", "ControlNetInpaint", dict(steps=4, guidance=5.0, strength=0.75, controls=PARTIAL)),
    "inpaint.ddim": ("inpaint", "vae", "ddim", "ControlNetInpaint", dict(steps=4, guidance=5.0, strength=1.0, controls=PARTIAL)),
    "sdxl.euler": ("sdxl", "vae", "euler", "XLControlNet", dict(steps=4, guidance=6.0, controls=XL)),
    "tiny.euler": ("sd", "run.tiny", "euler", "", dict(steps=4, guidance=7.5)),
    "tiny.picture": ("sd", "run.tiny", "euler-a", "Img2Img", dict(steps=5, guidance=5.0, strength=0.6)),
    "tiny.blend": ("sd", "run.tiny", "ddim", "Inpaint", dict(steps=4, guidance=5.0, strength=0.75)),
    "tiny.inpaint": ("inpaint", "run.tiny", "euler-a", "Inpaint", dict(steps=4, guidance=5.0, strength=1.0)),
}


def class_name(kind):
    return "StableDiffusionXLControlNetPipeline" if kind == "XLControlNet" else f"StableDiffusion{kind}Pipeline"


def control_picture(i):
    """Other waves for each control, also made by the test."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    channels = [(x * 7 + y + 50 * i) % 256, (x + y * 6) % 256, (x * 2 + y * y + 90 * i) % 256]
    return Image.fromarray(np.stack(channels, 2).astype("uint8"))


def run(name, case, parts, seen):
    unet, vae, schedule, kind, o = case
    cls, extra = SCHEDULERS[schedule]
    given = dict(vae=parts[vae], text_encoder=None, tokenizer=None, unet=parts[unet])
    given |= dict(scheduler=cls(**{**SCHEDULER, **extra}))
    if "XL" in kind:
        given |= dict(text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
    else:
        given |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    controls = o.get("controls", [])
    nets = [parts[control["control"]] for control in controls]
    if controls:
        given |= dict(controlnet=nets[0] if len(nets) == 1 else MultiControlNetModel(nets))
    pipe = getattr(diffusers, class_name(kind))(**given)
    pipe.set_progress_bar_config(disable=True)
    width = pipe.unet.config.cross_attention_dim
    given = dict(
        prompt_embeds=picture("text", 1, pipelines.TOKENS, width),
        negative_prompt_embeds=picture("negative", 1, pipelines.TOKENS, width),
        num_inference_steps=o["steps"],
        guidance_scale=o["guidance"],
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
    )
    if controls:
        one = (lambda values: values[0]) if len(nets) == 1 else (lambda values: values)
        hint = "control_image" if "strength" in o else "image"
        given |= {hint: one([control_picture(i) for i in range(len(controls))])}
        given |= dict(controlnet_conditioning_scale=one([c["scale"] for c in controls]))
        given |= dict(control_guidance_start=one([c["start"] for c in controls]))
        given |= dict(control_guidance_end=one([c["end"] for c in controls]))
    if kind != "Img2Img":
        given |= dict(height=SIZE[0], width=SIZE[1])
    if "XL" in kind:
        given |= dict(pooled_prompt_embeds=picture("pooled", 1, 16), negative_pooled_prompt_embeds=picture("unpooled", 1, 16))
    if "strength" in o:
        given |= dict(image=canvas()[0], strength=o["strength"])
    if "Inpaint" in kind:
        given |= dict(mask_image=canvas()[1])

    def keep(_, step, timestep, tensors):
        seen["latents"] = tensors["latents"]
        return {}

    image = pipe(**given, callback_on_step_end=keep).images[0]
    latents = seen["latents"][0].permute(1, 2, 0).numpy()
    print(f"{name}: latents {latents.std():.3g}, picture {image.std():.3g}")
    return np.ascontiguousarray(latents), bytes_of(image)


def last(x):
    return latent.last(x.float())


def checkpoint_name(name, layers):
    """The name of a tensor of a ControlNet in the files of its original code."""
    part = name.split(".")
    if part[0] == "controlnet_down_blocks":
        return f"zero_convs.{part[1]}.0.{part[2]}"
    if part[0] == "controlnet_mid_block":
        return f"middle_block_out.0.{part[1]}"
    if part[0] == "controlnet_cond_embedding":
        layer = {"conv_in": 0, "conv_out": 14}.get(part[1])
        return f"input_hint_block.{2 * int(part[2]) + 2 if layer is None else layer}.{part[-1]}"
    return ldm.unet_name(name, layers)


def checkpoint_names(model):
    """In the order of diffusers' names, as diffusers' own loader reads them."""
    state = model.state_dict()
    names = {name: checkpoint_name(name, model.config.layers_per_block) for name in sorted(state)}
    file = {f"control_model.{names[name]}": tensor for name, tensor in state.items()}
    ldm.check(state, convert_controlnet_checkpoint(file, model.config))
    return list(names.values())


def bytes_of(image):
    """Every second pixel: an error in any decoder shows in these."""
    return np.ascontiguousarray((image[::2, ::2] * 255).round().astype("uint8"))


def networks(cases, arrays):
    for name, (unet, options) in CONTROLS.items():
        model = ControlNetModel(**{**shared(latent.UNETS[unet]), **options})
        cases[name] = {"unet": unet, "config": config(model), "tensors": fill(model)}
        if name == "sd1":
            cases[name]["checkpoint"] = checkpoint_names(model)
        factor = 2 ** (len(options["conditioning_embedding_out_channels"]) - 1)
        x = picture("x", 2, 4, *UNET_SIZE).double()
        text = picture("text", 2, TOKENS, model.config.cross_attention_dim).double()
        hint = picture("hint", 1, 3, factor * UNET_SIZE[0], factor * UNET_SIZE[1]).double() / 2 + 0.5
        extra = {}
        if unet == "sdxl":
            sizes = torch.tensor([[1024.0, 768.0, 0.0, 16.0, 512.0, 512.0]]).repeat(2, 1)
            extra["added_cond_kwargs"] = {"text_embeds": picture("pooled", 2, 16).double(), "time_ids": sizes}
        times = torch.tensor([981.0, 7.0])
        whole = UNet2DConditionModel(**latent.UNETS[unet])
        fill(whole)
        model, whole = model.double().eval(), whole.double().eval()
        with torch.no_grad():
            down, middle = model(x, times, text, hint.repeat(2, 1, 1, 1), 0.7, return_dict=False, **extra)
            with_control = whole(
                x, times, text,
                down_block_additional_residuals=down, mid_block_additional_residual=middle, **extra,
            ).sample
            without = whole(x, times, text, **extra).sample
        for i, residual in enumerate([*down, middle]):
            # Of one picture: the output tells of both.
            arrays[f"{name}.{i}"] = last(residual[1:])
        arrays[f"{name}.output"] = last(with_control)
        print(f"{name}: {middle.std():.3g}, {with_control.std():.3g}, changed by {(with_control - without).std():.3g}")
    for name, options in TINIES.items():
        model = AutoencoderTiny(**options).eval()
        cases[name] = {"config": config(model), "tensors": fill(model)}
        factor = 2 ** (len(options["encoder_block_out_channels"]) - 1)
        z = 4 * picture("latent", 1, model.config.latent_channels, 5, 3)
        with torch.no_grad():
            encoded = model.encode(picture("picture", 1, 3, 5 * factor, 3 * factor)).latents
            decoded = model.decode(z).sample
        scaled = model.scale_latents(z)
        arrays |= {f"{name}.encoded": last(encoded), f"{name}.decoded": last(decoded)}
        arrays |= {f"{name}.scaled": last(scaled), f"{name}.unscaled": last(model.unscale_latents(scaled))}
        print(f"{name}: {encoded.std():.3g} {decoded.std():.3g}")


def main(folder):
    cases, arrays = {}, {}
    networks(cases, arrays)
    parts = {name: UNet2DConditionModel(**options) for name, options in pipelines.UNETS.items()}
    parts |= {"vae": AutoencoderKL(**pipelines.VAE), "run.tiny": AutoencoderTiny(**TINIES["run.tiny"])}
    parts |= {name: ControlNetModel(**options) for name, options in RUN_CONTROLS.items()}
    for name, part in parts.items():
        shapes = fill(part.eval())
        if name in RUN_CONTROLS:
            cases[name] = {"config": config(part), "tensors": shapes}
    runs, seen = {}, {}
    for name, case in CASES.items():
        latents, image = run(name, case, parts, seen)
        arrays[f"{name}.latents"], arrays[f"{name}.picture"] = latents, image
        if name == "text.euler":
            # With the last step's noise gone, the latents are what a preview shows.
            with torch.no_grad():
                shown = parts["run.tiny"].decode(seen["latents"]).sample[0]
            arrays[f"{name}.preview"] = bytes_of((shown / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())
        unet, vae, schedule, kind, options = case
        cls, extra = SCHEDULERS[schedule]
        scheduler = cls(**{**SCHEDULER, **extra}).to_json_string()
        classes = dict(class_name=class_name(kind), scheduler_class=cls.__name__)
        runs[name] = dict(unet=unet, vae=vae, **classes, scheduler=scheduler, **options)
    folder = pathlib.Path(folder)
    text = json.dumps({"networks": cases, "runs": runs}, separators=(",", ":"))
    (folder / "control.json").write_text(text + "\n")
    safetensors.numpy.save_file(arrays, folder / "control.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
