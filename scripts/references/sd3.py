"""References for tests/sd3.rs: Stable Diffusion 3 as diffusers and transformers compute it, from the transformer to whole
runs, with weights that both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch diffusers transformers tokenizers regex safetensors scipy
    venv/bin/python scripts/references/sd3.py tests/fixtures
"""

import json
import pathlib
import sys

import diffusers
import numpy as np
import safetensors.numpy
import tokenizers
import torch
import transformers
from diffusers import AutoencoderKL, SD3Transformer2DModel

import text
from latent import config, fill, last, picture
from pipelines import SEED, canvas

SIZE = (24, 40)
HEADS = dict(num_attention_heads=2, attention_head_dim=8, caption_projection_dim=16)
TINY = dict(HEADS, sample_size=8, num_layers=2, joint_attention_dim=20, pooled_projection_dim=14, pos_embed_max_size=12)
# name: (configuration, height and width of the latent)
TRANSFORMERS = {
    "plain": (dict(TINY, num_layers=3, in_channels=4, out_channels=4), (10, 14)),
    # As Stable Diffusion 3.5 large and medium; latents with rows and columns that fill no patch.
    "large": (dict(TINY, num_layers=3, qk_norm="rms_norm"), (9, 24)),
    "medium": (
        dict(TINY, num_attention_heads=3, caption_projection_dim=24, num_layers=4, qk_norm="rms_norm", dual_attention_layers=(0, 1)),
        (21, 4),
    ),
    "threes": (dict(TINY, patch_size=3, in_channels=5, out_channels=None, pos_embed_max_size=7), (6, 17)),
    # The last two are those of whole runs.
    "tiny": (TINY, (8, 8)),
    "tiny_dual": (dict(TINY, qk_norm="rms_norm", dual_attention_layers=(0,)), (8, 8)),
}
TOKENS, LONG_TOKENS = 7, 24
T5 = dict(d_model=20, d_kv=6, num_heads=3, d_ff=40, num_layers=3, feed_forward_proj="gated-gelu")
CLIPS = {
    "clip_l": dict(hidden_size=8, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, projection_dim=8),
    "clip_g": dict(
        hidden_size=10, intermediate_size=20, num_hidden_layers=4, num_attention_heads=2, projection_dim=6, hidden_act="gelu"
    ),
}
VAE = dict(
    block_out_channels=(8, 12, 16),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    layers_per_block=1,
    norm_num_groups=4,
    latent_channels=16,
    scaling_factor=1.5305,
    shift_factor=0.0609,
    use_quant_conv=False,
    use_post_quant_conv=False,
)
EULER, HEUN = diffusers.FlowMatchEulerDiscreteScheduler, diffusers.FlowMatchHeunDiscreteScheduler
DYNAMIC = dict(use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=64)
# name: (transformer, pipeline, scheduler, its configuration, options)
RUNS = {
    "text.euler": ("tiny", "", EULER, dict(shift=3.0), dict(steps=4, guidance=5.0)),
    "text.dynamic": ("tiny", "", EULER, DYNAMIC, dict(steps=4, guidance=5.0)),
    "text.turbo": ("tiny", "", EULER, dict(shift=3.0), dict(steps=4, guidance=1.0)),
    "text.heun": ("tiny", "", HEUN, dict(shift=3.0), dict(steps=3, guidance=4.0)),
    "text.stochastic": ("tiny", "", EULER, dict(shift=3.0, stochastic_sampling=True), dict(steps=4, guidance=4.0)),
    "text.dual": ("tiny_dual", "", EULER, dict(shift=3.0), dict(steps=4, guidance=5.0)),
    "picture.euler": ("tiny", "Img2Img", EULER, dict(shift=3.0), dict(steps=5, guidance=4.0, strength=0.6)),
    "picture.half": ("tiny", "Img2Img", EULER, DYNAMIC, dict(steps=5, guidance=4.0, strength=0.5)),
    "blend.euler": ("tiny", "Inpaint", EULER, dict(shift=3.0), dict(steps=4, guidance=4.0, strength=1.0)),
    "blend.part": ("tiny", "Inpaint", EULER, dict(shift=3.0), dict(steps=4, guidance=4.0, strength=0.7)),
}
WORDS = ("a photograph of a red cat, sharp focus", "blurry, low quality")


def t5_tokenizer(folder):
    """Pieces learnt from our own words, in the form that transformers saves."""
    learner = tokenizers.Tokenizer(tokenizers.models.Unigram())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=260, special_tokens=specials, unk_token="<unk>")
    learner.train_from_iterator(text.CORPUS.splitlines(), trainer)
    pieces = [tuple(piece) for piece in json.loads(learner.to_str())["model"]["vocab"]]
    tokenizer = transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        if file.name not in ("tokenizer.json", "tokenizer_config.json"):
            file.unlink()
    return tokenizer


def run(parts, case, **given):
    name, (_, kind, cls, options, o) = case
    pipe = getattr(diffusers, f"StableDiffusion3{kind}Pipeline")(scheduler=cls(**options), **parts)
    pipe.set_progress_bar_config(disable=True)
    given |= dict(num_inference_steps=o["steps"], guidance_scale=o["guidance"], height=SIZE[0], width=SIZE[1])
    given |= dict(generator=torch.Generator().manual_seed(SEED), output_type="np")
    if kind:
        given |= dict(image=canvas(SIZE)[0], strength=o["strength"])
    if kind == "Inpaint":
        given |= dict(mask_image=canvas(SIZE)[1])
    seen = {}

    def keep(_, step, timestep, tensors):
        seen["latents"] = tensors["latents"]
        return {}

    # The stochastic scheduler draws from the global generator, as no pipeline gives it one: after the first latents.
    torch.manual_seed(SEED)
    torch.randn(1, VAE["latent_channels"], SIZE[0] // 4, SIZE[1] // 4)
    image = pipe(**given, callback_on_step_end=keep).images[0]
    if kind == "Inpaint":
        # Alone of the pipelines it decodes latents that are still shifted.
        vae = parts["vae"]
        with torch.no_grad():
            image = vae.decode(seen["latents"] / vae.config.scaling_factor + vae.config.shift_factor).sample[0]
        image = (image / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    latents = seen["latents"][0].permute(1, 2, 0).numpy()
    print(f"{name}: latents {latents.std():.3g}, picture {image.std():.3g}")
    return np.ascontiguousarray(latents), np.ascontiguousarray((image * 255).round().astype("uint8"))


def main(folder):
    folder = pathlib.Path(folder)
    arrays, parts, models = {}, {}, {}
    for name, (options, size) in TRANSFORMERS.items():
        models[name] = model = SD3Transformer2DModel(**options).eval()
        parts[name] = {"config": config(model), "tensors": fill(model)}
        x = picture("x", 2, model.config.in_channels, *size)
        told = dict(
            encoder_hidden_states=picture("text", 2, TOKENS, model.config.joint_attention_dim),
            pooled_projections=picture("pooled", 2, model.config.pooled_projection_dim),
            timestep=torch.tensor([981.5, 7.0]),
        )
        with torch.no_grad():
            y = model(x, **told).sample
        if not name.startswith("tiny"):
            arrays[f"{name}.output"] = last(y)
        print(f"{name}: {y.std():.3g}")
    vae = AutoencoderKL(**VAE).eval()
    parts["vae"] = {"config": config(vae), "tensors": fill(vae)}

    t5_tokens = t5_tokenizer(folder / "t5_tokenizer")
    tokens = [[t, t5_tokens(t, add_special_tokens=False).input_ids] for t in text.ODD + text.random_texts(300)]
    t5 = transformers.T5EncoderModel(transformers.T5Config(vocab_size=len(t5_tokens), **T5)).eval()
    shapes = fill(t5)
    shapes.pop("encoder.embed_tokens.weight", None)
    # Tied: whichever of the two was filled last counts.
    t5.shared.weight.data = torch.from_numpy(text.weight("shared.weight", shapes["shared.weight"]))
    t5.encoder.embed_tokens.weight = t5.shared.weight
    parts["t5"] = {"config": dict(T5, vocab_size=len(t5_tokens)), "tensors": shapes}
    with torch.no_grad():
        ids = torch.arange(200).reshape(2, 100) % len(t5_tokens)
        arrays["t5.states"] = t5(ids)[0].numpy()

    vocab, merges = text.vocabulary()
    text.ENCODERS |= CLIPS
    clips = {}
    for name in CLIPS:
        clips[name], options, shapes = text.encoder(name, vocab)
        parts[name] = {"config": options, "tensors": shapes}
    clip_tokens = [transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, **o) for o in ({}, {"pad_token": "!"})]
    encoders = dict(text_encoder=clips["clip_l"], tokenizer=clip_tokens[0], text_encoder_2=clips["clip_g"], tokenizer_2=clip_tokens[1])
    long = dict(text_encoder_3=t5, tokenizer_3=t5_tokens)
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3"))

    for kind, third in (("with", long), ("without", dict.fromkeys(long))):
        pipe = diffusers.StableDiffusion3Pipeline(
            transformer=models["tiny"], vae=vae, scheduler=EULER(), **encoders, **third
        )
        for i, (wanted, unwanted) in enumerate(text.TEXTS[:2] if kind == "with" else text.TEXTS[:1]):
            with torch.no_grad():
                told = dict(device="cpu", negative_prompt=unwanted, max_sequence_length=LONG_TOKENS)
                found = pipe.encode_prompt(wanted, None, None, **told)
            for what, value in zip(("states", "negative", "pooled", "negative_pooled"), found):
                arrays[f"{kind}.{i}.{what}"] = value[0].numpy()

    cases, runs = {}, {}
    for case in RUNS.items():
        name, (transformer, kind, cls, options, o) = case
        model = models[transformer]
        told = {}
        for what, prefix in (("text", ""), ("negative", "negative_")):
            told[f"{prefix}prompt_embeds"] = picture(what, 1, TOKENS, model.config.joint_attention_dim)
            told[f"{prefix}pooled_prompt_embeds"] = picture(f"{what}.pooled", 1, model.config.pooled_projection_dim)
        latents, image = run(dict(transformer=model, vae=vae, **none), case, **told)
        runs[f"{name}.latents"], runs[f"{name}.picture"] = latents, image
        scheduler = cls(**options).to_json_string()
        cases[name] = dict(transformer=transformer, kind=kind, scheduler_class=cls.__name__, scheduler=scheduler, **o)
    # From words to a picture.
    name, spec = "words", RUNS["text.euler"]
    everything = dict(transformer=models["tiny"], vae=vae, **encoders, **long)
    latents, image = run(everything, (name, spec), prompt=WORDS[0], negative_prompt=WORDS[1])
    runs[f"{name}.latents"], runs[f"{name}.picture"] = latents, image

    for found, file in ((arrays, "sd3.safetensors"), (runs, "sd3_runs.safetensors")):
        safetensors.numpy.save_file({name: np.ascontiguousarray(value) for name, value in found.items()}, folder / file)
    described = {"parts": parts, "cases": cases, "tokens": tokens, "texts": text.TEXTS, "words": WORDS}
    (folder / "sd3.json").write_text(json.dumps(described, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
