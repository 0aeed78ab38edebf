"""SDXL of its full size with random weights, f16 (5.3 GB), and what diffusers' UNet makes of noise with them.

    latent_model_xl.py FOLDER                      writes the model: UNet and autoencoder, no encoders of text
    latent_model_xl.py FOLDER SIDE REFERENCE       runs the UNet on a latent of SIDE×SIDE, one picture, and writes
                                                   inputs and output, to be compared by `cargo bench --bench latent`

The run is in f32 arithmetic on the CPU. Neither holds the weights in f32: they are made, and for the run widened, a tensor
at a time.
"""
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.numpy import save_file

UNET = dict(
    sample_size=128,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(320, 640, 1280),
    cross_attention_dim=2048,
    transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20),
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
VAE = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    sample_size=1024,
    scaling_factor=0.13025,
    force_upcast=True,
)
SCHEDULER = dict(
    _class_name="EulerDiscreteScheduler",
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    timestep_spacing="leading",
    steps_offset=1,
    prediction_type="epsilon",
)


def write(model, folder):
    """Random weights of the model's shapes, such that numbers keep their size from layer to layer."""
    folder.mkdir(parents=True)
    model.save_config(folder)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with open(folder / "diffusion_pytorch_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            values = rng.standard_normal(math.prod(shape), dtype=np.float32)
            if len(shape) > 1:
                values /= math.sqrt(math.prod(shape[1:]))
            else:
                values = values * 0.1 + name.endswith("weight")
            file.write(values.astype(np.float16).tobytes())


def narrow(module, *_):
    for name in module._parameters:
        if module._parameters[name] is not None:
            module._parameters[name] = torch.nn.Parameter(torch.empty(0), requires_grad=False)


def widen(module, _):
    for name, parameter in module._parameters.items():
        if parameter is not None:
            parameter.data = weights.get_tensor(f"{module.path}{name}").float()


folder = Path(sys.argv[1])
if len(sys.argv) == 2:
    with torch.device("meta"):
        write(UNet2DConditionModel(**UNET), folder / "unet")
        write(AutoencoderKL(**VAE), folder / "vae")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    # Last, as it says that the folder is whole.
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusionXLPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }, indent=1))
else:
    side, reference = int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(2)
    torch.manual_seed(0)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET).eval()
    weights = safe_open(folder / "unet/diffusion_pytorch_model.safetensors", framework="pt")
    for path, module in unet.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.path = f"{path}." if path else ""
            narrow(module)
            module.register_forward_pre_hook(widen)
            module.register_forward_hook(narrow)
    x = torch.randn(1, 4, side, side)
    text, pooled = torch.randn(1, 77, 2048), torch.randn(1, 1280)
    sizes = torch.tensor([[8.0 * side, 8.0 * side, 0.0, 0.0, 8.0 * side, 8.0 * side]])
    with torch.inference_mode():
        # The width of its parameters tells the embedding of time its type.
        added = {"text_embeds": pooled, "time_ids": sizes}
        y = unet(x, torch.tensor([500.0]), encoder_hidden_states=text, added_cond_kwargs=added).sample
    last = lambda tensor: np.ascontiguousarray(tensor.permute(0, 2, 3, 1).numpy())
    tensors = {"x": last(x), "y": last(y), "text": text.numpy(), "pooled": pooled.numpy(), "sizes": sizes.numpy()}
    save_file(tensors | {"timesteps": np.array([[500.0]], dtype=np.float32)}, reference)
    print(f"output: mean {y.mean():.3f}, rms {y.square().mean().sqrt():.3f}, finite {bool(y.isfinite().all())}")
