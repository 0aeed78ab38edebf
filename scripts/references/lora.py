"""References for tests/lora/main.rs: networks of latent diffusion with adapters, as diffusers and PEFT compute them, with
weights and adapters that both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers transformers peft regex safetensors
    venv/bin/python scripts/references/lora.py tests/fixtures
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from architectures import numbers
from latent import TOKENS, UNET_SIZE, UNETS, fill, last, picture
from ldm import unet_names
from text import encoder, vocabulary

GAIN = 0.3
PROMPT = "a photograph of a red cat"
# Tokens of the embeddings that are kept.
SEEN = 12
ALPHA = 3.0


def values(name, shape):
    """Factors of an adapter; alpha is one number."""
    if name.endswith("alpha"):
        return np.float32(ALPHA).reshape(shape)
    return numbers(name, int(np.prod(shape))).reshape(shape) * np.float32(GAIN)


def rank(path):
    return 2 if "resnets" in path or "samplers" in path else 4


def factors(shape, r):
    """Shapes of down and up of a layer."""
    rows, columns, *kernel = shape
    return [r, columns, *kernel], [rows, r, *(1 for _ in kernel)]


def layers(model, wanted):
    """Linear layers and convolutions whose paths have one of these words."""
    shapes = {k.removesuffix(".weight"): list(v.shape) for k, v in model.state_dict().items() if k.endswith(".weight")}
    return {path: shape for path, shape in shapes.items() if len(shape) in (2, 4) and any(w in path for w in wanted)}


def published(path):
    return path if path.startswith(("text_model.", "text_projection")) else f"text_model.{path}"


ATTENTION = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out"}
ATTENTION |= {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def peft_names(part, path):
    return f"{part}.{path}.lora_A.weight", f"{part}.{path}.lora_B.weight"


def middle_names(part, path):
    word = "lora" if part == "unet" else "lora_linear_layer"
    return f"{part}.{path}.{word}.down.weight", f"{part}.{path}.{word}.up.weight"


def old_names(part, path):
    for new, old in ATTENTION.items():
        if path.endswith("." + new):
            processor = ".processor" if part == "unet" else ""
            path = f"{path.removesuffix('.' + new)}{processor}.{old}_lora"
            return f"{part}.{path}.down.weight", f"{part}.{path}.up.weight"
    raise ValueError(path)


def kohya_names(prefix, path):
    name = f"{prefix}_{path.replace('.', '_')}"
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"


def adapter(parts, names):
    """The shapes of a file's tensors: `parts` are a name, a network's layers and what their paths become."""
    shapes = {}
    for part, found, spelled in parts:
        for path, shape in found.items():
            pair = factors(shape, rank(path))
            shapes |= dict(zip(names(part, spelled(path)), [*pair, []]))
    return shapes


def same(path):
    return path


def files(sd, xl, one, two):
    """Files of adapters: shapes of tensors and metadata."""
    attention = ("attn1.to", "attn2.to")
    some = ("down_blocks.0.attentions.1.transformer", "up_blocks.2.attentions.0.transformer")
    unet = {**layers(sd, some), **layers(sd, ("mid_block.attentions.0.proj", "resnets.0.conv1", "conv_shortcut"))}
    only = {path: shape for path, shape in layers(sd, some).items() if any(word in path for word in attention)}
    text = layers(one, ("layers.0.", "layers.2.mlp"))
    heads = layers(one, ("layers.1.self_attn",))
    # One of each kind of layer that an SDXL UNet has, but the upsamplers behind no attention, which diffusers misreads.
    wide = ["conv_in", "conv_out", "time_embedding", "add_embedding", "time_emb_proj", "downsamplers", "mid_block"]
    wide += ["conv_shortcut", "up_blocks.0.upsamplers", "down_blocks.1.attentions.1", "up_blocks.1.attentions.2"]
    wide = layers(xl, wide)
    ldm = {new.removesuffix(".weight"): old.removesuffix(".weight") for new, old in unet_names(xl).items()}
    both = layers(one, ("layers.0.self_attn",)), layers(two, ("layers.2.", "text_projection"))
    peft = adapter([("unet", unet, same), ("text_encoder", text, published)], peft_names)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": [], "use_rslora": False}
    patterns = {"rank_pattern": {"conv1": 2, "conv_shortcut": 2}, "alpha_pattern": {"attn1.to_q": 2}}
    metadata = {f"unet.{k}": v for k, v in {**settings, **patterns, "target_modules": sorted(unet)}.items()}
    metadata |= {f"text_encoder.{k}": v for k, v in {**settings, "target_modules": sorted(text)}.items()}
    return {
        "peft": (peft, None),
        "metadata": (peft, json.dumps(metadata)),
        "middle": (adapter([("unet", only, same), ("text_encoder", text, published)], middle_names), None),
        "old": (adapter([("unet", only, same), ("text_encoder", heads, published)], old_names), None),
        "kohya": (adapter([("lora_unet", unet, same), ("lora_te", text, published)], kohya_names), None),
        "xl": (
            adapter(
                [
                    ("lora_unet", wide, ldm.get),
                    ("lora_te1", both[0], published),
                    ("lora_te2", both[1], published),
                ],
                kohya_names,
            ),
            None,
        ),
        "xl_peft": (
            adapter(
                [
                    ("unet", layers(xl, ("down_blocks.2.attentions.1",)), same),
                    ("text_encoder", both[0], published),
                    ("text_encoder_2", layers(two, ("layers.1.",)), published),
                ],
                peft_names,
            ),
            None,
        ),
    }


# name: (pipeline, adapters with their strengths)
CASES = {
    "peft": ("sd1", {"peft": 1.0}),
    "metadata": ("sd1", {"metadata": 1.0}),
    "middle": ("sd1", {"middle": 0.8}),
    "old": ("sd1", {"old": 1.0}),
    "kohya": ("sd1", {"kohya": 1.0}),
    "several": ("sd1", {"peft": 0.7, "kohya": -0.4, "middle": 0.5}),
    "xl": ("sdxl", {"xl": 1.0}),
    "xl_several": ("sdxl", {"xl": 0.6, "xl_peft": 1.5}),
}


def call(unet):
    x = picture("x", 2, unet.config.in_channels, *UNET_SIZE)
    text = picture("text", 2, TOKENS, unet.config.cross_attention_dim)
    extra = {}
    if unet.config.addition_embed_type:
        sizes = torch.tensor([[1024.0, 768.0, 0.0, 16.0, 512.0, 512.0]]).repeat(2, 1)
        extra["added_cond_kwargs"] = {"text_embeds": picture("pooled", 2, 16), "time_ids": sizes}
    with torch.no_grad():
        return last(unet(x, torch.tensor([981.0, 7.0]), text, **extra).sample)


def embeddings(pipe, xl):
    with torch.no_grad():
        if not xl:
            return {"states": pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0, :SEEN]}
        states, _, pooled, _ = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
        return {"states": states[0, :SEEN], "pooled": pooled[0]}


def lycoris(unet):
    """Shapes of a file with adapters of all kinds, each with an alpha of its own, and what they add up to."""
    tensors, added = {}, {}

    def put(key, shape):
        tensors[key] = list(shape)
        if key.endswith("alpha"):
            return float(numbers(key, 1)[0])
        return values(key, shape).astype(np.float64)

    def kernel(core, up, down):
        return np.einsum("abyx,oa,bi->oiyx", core, up, down)

    def name(path):
        return f"lora_unet_{path.replace('.', '_')}"

    state = unet.state_dict()
    block = "up_blocks.1.attentions.0.transformer_blocks.0"
    r = 3

    def add(path, what):
        shape = state[f"{path}.weight"].shape
        n = name(path)
        rows, columns, k = shape[0], int(np.prod(shape[1:])), tuple(shape[2:])
        scale = put(f"{n}.alpha", []) / r if what != "kron" else 1.0
        if what == "lora":
            down, up = factors(shape, r)
            delta = put(f"{n}.lora_up.weight", up).reshape(rows, r) @ put(f"{n}.lora_down.weight", down).reshape(r, -1)
        if what == "core":
            up, down = put(f"{n}.lora_up.weight", [rows, r, 1, 1]), put(f"{n}.lora_down.weight", [5, shape[1], 1, 1])
            delta = kernel(put(f"{n}.lora_mid.weight", [r, 5, *k]), up[:, :, 0, 0], down[:, :, 0, 0])
            # The rank is the down's.
            scale = scale * r / 5
        if what == "hada":
            pairs = [put(f"{n}.hada_w{i}_a", [rows, r]) @ put(f"{n}.hada_w{i}_b", [r, columns]) for i in (1, 2)]
            delta = pairs[0] * pairs[1]
        if what == "hada_core":
            parts = []
            for i in (1, 2):
                a, b = put(f"{n}.hada_w{i}_a", [r, rows]), put(f"{n}.hada_w{i}_b", [r, shape[1]])
                parts.append(kernel(put(f"{n}.hada_t{i}", [r, r, *k]), a.T, b))
            delta = parts[0] * parts[1]
        if what == "kron":
            tensors[f"{n}.alpha"] = []
            one = put(f"{n}.lokr_w1", [2, 4])
            delta = np.kron(one, put(f"{n}.lokr_w2", [rows // 2, columns // 4]))
        if what == "kron_product":
            one = put(f"{n}.lokr_w1_a", [4, 2]) @ put(f"{n}.lokr_w1_b", [2, 2])
            other = put(f"{n}.lokr_w2_a", [rows // 4, r]) @ put(f"{n}.lokr_w2_b", [r, columns // 2])
            delta = np.kron(one, other)
        if what == "kron_core":
            one = put(f"{n}.lokr_w1", [2, 4])
            a, b = put(f"{n}.lokr_w2_a", [r, rows // 2]), put(f"{n}.lokr_w2_b", [r, shape[1] // 4])
            other = kernel(put(f"{n}.lokr_t2", [r, r, *k]), a.T, b)
            delta = np.kron(one[:, :, None, None], other)
        added[f"{path}.weight"] = (scale * delta).reshape(shape)

    add(f"{block}.attn1.to_q", "lora")
    add(f"{block}.attn2.to_k", "lora")
    add("up_blocks.1.attentions.0.proj_in", "lora")
    add("down_blocks.1.resnets.0.conv1", "lora")
    add("down_blocks.1.resnets.0.conv2", "core")
    add(f"{block}.attn1.to_v", "hada")
    add("down_blocks.1.resnets.1.conv1", "hada")
    add("down_blocks.1.resnets.1.conv2", "hada_core")
    add(f"{block}.attn2.to_q", "kron")
    add("mid_block.resnets.0.conv1", "kron")
    add(f"{block}.ff.net.2", "kron_product")
    add("mid_block.resnets.0.conv2", "kron_core")
    for path in ("mid_block.resnets.1.conv1", "conv_norm_out"):
        for key, kind in (("diff", "weight"), ("diff_b", "bias")):
            added[f"{path}.{kind}"] = put(f"{name(path)}.{key}", state[f"{path}.{kind}"].shape)
    for key, delta in added.items():
        state[key] = (state[key].double() + 0.7 * torch.from_numpy(np.asarray(delta))).float()
    unet.load_state_dict(state)
    return tensors


def main(folder):
    folder = pathlib.Path(folder)
    vocab, merges = vocabulary()
    arrays, cases, described = {}, {}, {}

    def pipeline(kind):
        unet = UNet2DConditionModel(**UNETS[kind]).eval()
        fill(unet)
        one, two = encoder("one", vocab)[0], encoder("two", vocab)[0]
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
        padded = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token="!")
        parts = dict(vae=None, scheduler=None, unet=unet, text_encoder=one, tokenizer=tokenizer)
        if kind == "sdxl":
            return StableDiffusionXLPipeline(**parts, text_encoder_2=two, tokenizer_2=padded, add_watermarker=False)
        rest = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        return StableDiffusionPipeline(**parts, **rest)

    sd, xl = pipeline("sd1"), pipeline("sdxl")
    all_files = files(sd.unet, xl.unet, xl.text_encoder, xl.text_encoder_2)
    plain = {"sd1": call(sd.unet), "sdxl": call(xl.unet)}
    with tempfile.TemporaryDirectory() as temporary:
        for name, (shapes, metadata) in all_files.items():
            described[name] = {"tensors": shapes, "metadata": metadata}
            tensors = {key: np.ascontiguousarray(values(key, shape)) for key, shape in shapes.items()}
            metadata = {"lora_adapter_metadata": metadata} if metadata else None
            safetensors.numpy.save_file(tensors, f"{temporary}/{name}.safetensors", metadata)
        for name, (kind, adapters) in CASES.items():
            pipe = pipeline(kind)
            before = embeddings(pipe, kind == "sdxl")
            for file in adapters:
                pipe.load_lora_weights(temporary, weight_name=f"{file}.safetensors", adapter_name=file)
            pipe.set_adapters(list(adapters), list(adapters.values()))
            arrays[f"{name}.unet"] = call(pipe.unet)
            found = embeddings(pipe, kind == "sdxl")
            changed = [np.abs(arrays[f"{name}.unet"] - plain[kind]).max() / np.ptp(plain[kind])]
            for what, value in found.items():
                arrays[f"{name}.{what}"] = value.numpy()
                changed.append(float((value - before[what]).abs().max() / np.ptp(value.numpy())))
            cases[name] = {"pipeline": kind, "adapters": adapters}
            print(name, "changes", [f"{c:.2g}" for c in changed])
    unet = UNet2DConditionModel(**UNETS["sd1"]).eval()
    fill(unet)
    described["lycoris"] = {"tensors": lycoris(unet), "metadata": None}
    arrays["lycoris.unet"] = call(unet)
    print("lycoris changes", np.abs(arrays["lycoris.unet"] - plain["sd1"]).max() / np.ptp(plain["sd1"]))
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    safetensors.numpy.save_file(arrays, folder / "lora.safetensors")
    text = {"prompt": PROMPT, "gain": GAIN, "alpha": ALPHA, "files": described, "cases": cases}
    (folder / "lora.json").write_text(json.dumps(text, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
