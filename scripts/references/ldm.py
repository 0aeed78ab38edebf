"""Names for tests/checkpoints.rs: those of latent-diffusion checkpoints for the tensors of diffusers' models, as
diffusers' own loader of single files reads them.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers transformers safetensors
    venv/bin/python scripts/references/ldm.py tests/fixtures
"""

import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from latent import config

UNETS = {
    "one": dict(attention_head_dim=8, cross_attention_dim=12),
    "two": dict(attention_head_dim=(1, 2), cross_attention_dim=12, use_linear_projection=True),
    "xl": dict(
        attention_head_dim=(1, 2),
        cross_attention_dim=12,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 3),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
    ),
}
# Widths of heads and groups are not in the file: those of the published models.
COMMON = dict(
    block_out_channels=(64, 128),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)
VAE = dict(
    block_out_channels=(32, 32, 64, 64),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=1,
)
TEXT = dict(
    vocab_size=20,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=9,
    projection_dim=32,
)
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_name(name, layers):
    """The name of a tensor of the UNet in a checkpoint."""
    part = name.split(".")
    fixed = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for new, old in fixed.items():
        if name.startswith(new + "."):
            return old + name[len(new) :]
    if part[0] == "mid_block":
        index = {("resnets", "0"): 0, ("attentions", "0"): 1, ("resnets", "1"): 2}[part[1], part[2]]
        rest = ".".join([RESNET[part[3]], *part[4:]] if part[1] == "resnets" else part[3:])
        return f"middle_block.{index}.{rest}"
    block, kind, index = int(part[1]), part[2], int(part[3])
    if part[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{part[5]}"
        place = f"input_blocks.{1 + block * (layers + 1) + index}"
    else:
        place = f"output_blocks.{block * (layers + 1) + (layers if kind == 'upsamplers' else index)}"
    if kind == "resnets":
        return f"{place}.0.{RESNET[part[4]]}.{part[5]}"
    if kind == "attentions":
        return f"{place}.1.{'.'.join(part[4:])}"
    return f"{place}.UP.conv.{part[5]}"


def unet_names(model):
    names = {name: unet_name(name, model.config.layers_per_block) for name in model.state_dict()}
    attended = {old.split(".")[1] for old in names.values() if old.startswith("output_blocks") and ".1.norm" in old}
    for name, old in names.items():
        names[name] = old.replace("UP", "2" if old.split(".")[1] in attended else "1")
    return names


def vae_name(name, levels):
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    for new, old in attention.items():
        name = name.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    part = name.split(".")
    if part[1] == "down_blocks":
        tail = f"block.{part[4]}" if part[3] == "resnets" else "downsample"
        return ".".join(["encoder", "down", part[2], tail, *part[5:]])
    if part[1] == "up_blocks":
        tail = f"block.{part[4]}" if part[3] == "resnets" else "upsample"
        return ".".join(["decoder", "up", str(levels - 1 - int(part[2])), tail, *part[5:]])
    return name


SD3 = dict(in_channels=4, out_channels=4, num_layers=2, joint_attention_dim=12, pooled_projection_dim=10, pos_embed_max_size=8)
SD3S = {
    # Without norms the width of a head, 64, is not in the file.
    "sd3": dict(SD3, num_attention_heads=2, attention_head_dim=64, caption_projection_dim=128),
    "sd35": dict(
        SD3,
        num_attention_heads=2,
        attention_head_dim=8,
        caption_projection_dim=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    ),
}
SD3_WHOLE = {
    "pos_embed.proj": "x_embedder.proj",
    "pos_embed.pos_embed": "pos_embed",
    "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
SD3_LAYER = {
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}


def sd3_names(model):
    """The transformer's tensors in a checkpoint, each with diffusers' ones that it holds."""
    names = {}
    for name in model.state_dict():
        stem, kind = name.rsplit(".", 1)
        if name == "pos_embed.pos_embed":
            old = "pos_embed"
        elif stem in SD3_WHOLE:
            old = f"{SD3_WHOLE[stem]}.{kind}"
        else:
            _, layer, part = stem.split(".", 2)
            joined = {f"attn.{n}": "x_block.attn.qkv" for n in ("to_q", "to_k", "to_v")}
            joined |= {f"attn.add_{n}_proj": "context_block.attn.qkv" for n in "qkv"}
            joined |= {f"attn2.to_{n}": "x_block.attn2.qkv" for n in "qkv"}
            old = f"joint_blocks.{layer}.{(SD3_LAYER | joined)[part]}.{kind}"
        names.setdefault(old, []).append(name)
    # Query, key, value.
    order = lambda name: next((i for i, n in enumerate(("q", "k", "v")) if f"to_{n}." in name or f"add_{n}_" in name), 0)
    return {old: sorted(new, key=order) for old, new in names.items()}


def sd3_model(settings):
    """Names, and those of tensors whose halves change places, checked against diffusers' loader."""
    model = SD3Transformer2DModel(**settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    state, names = model.state_dict(), sd3_names(model)
    last = f"joint_blocks.{model.config.num_layers - 1}.context_block.adaLN_modulation.1"
    swapped = [old for old in names if old.startswith(("final_layer.adaLN", last))]
    held = {old: torch.cat([state[n] for n in new]) for old, new in names.items()}
    for old in swapped:
        held[old] = torch.cat(held[old].chunk(2)[::-1])
    found = convert_sd3_transformer_checkpoint_to_diffusers({f"model.diffusion_model.{k}": v for k, v in held.items()})
    assert found.keys() == state.keys(), found.keys() ^ state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    return dict(config=config(model), tensors=shapes, names=names, swapped=swapped)


def clip_names(model):
    """OpenCLIP's tensors, each with the transformers' ones that it holds."""
    names = {
        "positional_embedding": ["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": ["text_model.embeddings.token_embedding.weight"],
        "ln_final.weight": ["text_model.final_layer_norm.weight"],
        "ln_final.bias": ["text_model.final_layer_norm.bias"],
        "text_projection": ["text_projection.weight"],
    }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for layer in range(model.config.num_hidden_layers):
        old, new = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            names |= {f"{old}.{a}.{kind}": [f"{new}.{b}.{kind}"] for a, b in parts.items()}
            names[f"{old}.attn.in_proj_{kind}"] = [f"{new}.self_attn.{part}_proj.{kind}" for part in "qkv"]
    return names


def check(wanted, found):
    assert wanted.keys() == found.keys(), wanted.keys() ^ found.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensor.squeeze(), found[name].squeeze()), name


def shapes(state):
    return {name: list(tensor.shape) for name, tensor in state.items()}


def main(folder):
    result = {}
    vae = AutoencoderKL(**VAE)
    state = vae.state_dict()
    names = {name: vae_name(name, len(VAE["block_out_channels"])) for name in state}
    file = {f"first_stage_model.{names[name]}": tensor for name, tensor in state.items()}
    for name in [name for name in file if ".mid.attn_1." in name and file[name].dim() == 2]:
        file[name] = file[name][:, :, None, None]
    check(state, convert_ldm_vae_checkpoint(dict(file), vae.config))
    result["vae"] = {"config": config(vae), "tensors": shapes(state), "names": {old: [new] for new, old in names.items()}}

    text = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT))
    state = {k if "." in k and k.startswith("text_") else f"text_model.{k}": v for k, v in text.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    file = {}
    for old, new in clip_names(text).items():
        tensor = torch.cat([state[name] for name in new])
        file[f"conditioner.embedders.1.model.{old}"] = tensor.T if old == "text_projection" else tensor
    found = convert_open_clip_checkpoint(text, file, prefix="conditioner.embedders.1.model.")
    check(state, {name: tensor for name, tensor in found.items() if name in state or "position_ids" not in name})
    result["text"] = {"config": TEXT, "tensors": shapes(state), "names": clip_names(text)}

    for name, options in UNETS.items():
        unet = UNet2DConditionModel(**{**COMMON, **options})
        state = unet.state_dict()
        names = unet_names(unet)
        file = {f"model.diffusion_model.{names[key]}": tensor for key, tensor in state.items()}
        check(state, convert_ldm_unet_checkpoint(dict(file), unet.config))
        result[name] = {
            "config": config(unet),
            "tensors": shapes(state),
            "names": {old: [new] for new, old in names.items()},
        }
        print(name, len(names))
    for name, options in SD3S.items():
        result[name] = sd3_model(options)
        print(name, len(result[name]["names"]))
    text = json.dumps(result, separators=(",", ":"))
    (pathlib.Path(folder) / "checkpoints.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
