"""Pictures for src/bench/: whole runs of 20 steps, as diffusers draws them in float32 from the noise of a generator on the
CPU.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers transformers safetensors pillow
    venv/bin/python scripts/references/bench_pictures.py src/bench/workloads/references [letters] [sd15]
"""

import pathlib
import sys

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from bench import TOKENS, fill, fill_text

MODELS = pathlib.Path(__file__).parents[2] / "models"
WORD, STEPS = "AQUA", 20


def letters():
    """The bundled model: a word, seeds 1, 2 …"""
    folder = MODELS / "letters-unet"
    net = diffusers.UNet2DModel.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()
    config = diffusers.DDPMScheduler.from_pretrained(folder).config
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(STEPS)
    noise = [torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(i + 1)) for i in range(len(WORD))]
    x, labels = torch.cat(noise), torch.tensor([ord(c) - ord("A") for c in WORD])
    none = torch.full_like(labels, 36)
    for t in scheduler.timesteps:
        c, u = net(torch.cat([x, x]), t, class_labels=torch.cat([labels, none])).sample.chunk(2)
        x = scheduler.step(u + 2.0 * (c - u), t, x).prev_sample
    grey = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[:, 0].numpy()
    return Image.fromarray(np.concatenate(list(grey), 1))


def sd15():
    """Stable Diffusion 1.5 with weights out of their names, 512×512, DDIM, seed 7, guidance 3: the middle of the picture."""
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
        max_position_embeddings=77, hidden_act="quick_gelu", attn_implementation="eager",
    )).eval()
    fill_text(text)
    states = [text.float()(torch.tensor([row + [49407] * (77 - len(row))])).last_hidden_state for row in (TOKENS, [49406, 49407])]
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()
    fill(unet, {}, torch.float32)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False, clip_sample=False,
    )
    scheduler.set_timesteps(STEPS)
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(7))
    for t in scheduler.timesteps:
        c, u = unet(torch.cat([x, x]), t, torch.cat(states)).sample.chunk(2)
        x = scheduler.step(u + 3.0 * (c - u), t, x).prev_sample
        print(int(t), float(x.std()), flush=True)
    del unet
    vae = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()
    fill(vae, {}, torch.float32)
    y = vae.decode(x / vae.config.scaling_factor).sample[0]
    rgb = ((y / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(rgb[224:288, 224:288])


def main(folder, names):
    for name in names or ["letters", "sd15"]:
        with torch.no_grad():
            picture = globals()[name]()
        picture.save(pathlib.Path(folder) / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
