"""References for tests/text.rs: tokens of transformers' CLIP tokenizer with a small vocabulary made here, and
embeddings of diffusers' pipelines from encoders whose weights both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers transformers regex safetensors
    venv/bin/python scripts/references/text.py tests/fixtures
"""

import json
import pathlib
import random
import sys

import numpy as np
import regex
import safetensors.numpy
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from architectures import weight

# What the vocabulary is learnt from: our own words.
CORPUS = """
a photograph of an astronaut riding a horse on the moon, oil painting of a lighthouse in a storm, a red cat sitting on
a wooden table near the window, portrait of an old sailor with a pipe, watercolour of mountains and a lake at dawn, the
city at night in the rain with neon signs, a detailed drawing of a castle, trending, sharp focus, high quality, soft
light, blurry, low quality, bad anatomy, it's the photographer's best picture, they're painting what we've seen
1234567890 2024 30mm 8k émigré naïve façade über straße
"""
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
MERGES = 300
ODD = [
    "", " ", "\n\t ", "a", "A", "Hello, World!", "the cat's whiskers aren't they'll we've I'm he'd you're",
    "THE CAT'S", "it’s", "1234567890", "3.14159 -42 1e10 ½ ² Ⅷ ٣", "a-b_c d/e\\f", "...!!!???", "(((())))", "[[x]]",
    "photo  of   a\tcat\r\nhere", "naïve café", "nai\u0308ve cafe\u0301", "Åström Å\u030a", "İstanbul ISTANBUL ıi",
    "ẞ straße STRASSE ﬁne", "Ǆ ǅ ǆ Σίσυφος ΟΔΟΣ", "日本語のテキスト", "中文，标点。", "한국어 한글", "עברית العربية",
    "ไทย हिन्दी தமிழ்", "🎈", "👩‍👩‍👧‍👦 🇫🇷 👍🏽 ❤️", "a🎈b", "\u200b\u200d\ufeff", "a\u00a0b\u2003c\u3000d", "\x00\x01\x07\x1b",
    "\x7f\x80\x9f", "<|endoftext|>", "a <|startoftext|> b", "<|STARTOFTEXT|>", "<|endoftext|", "http://example.org/a?b=c&d=%20",
    "C++ & C# @user #tag $5 50% ^_^", "e\u0301\u0302\u0303", "ﷺ ㎏ ㋿", "\ud7ff\ue000\ufffd", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈", "ʼn ŉ ﬀ",
    "x" * 120, "word " * 90, "ab" * 40 + "🎈" * 20,
]
TEXTS = [["a photograph of a red cat, sharp focus", "blurry, low quality"], ["", "bad"], ["word " * 40, ""]]
TOKENS = 77


def byte_names():
    """The characters that stand for bytes in byte-level vocabularies: printable ones as they are."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def vocabulary():
    """A byte-pair vocabulary in CLIP's order, and its merges."""
    names = byte_names()
    words = {}
    for word in regex.findall(WORDS, CORPUS.lower()):
        letters = [names[b] for b in word.encode()]
        letters[-1] += "</w>"
        words[tuple(letters)] = words.get(tuple(letters), 0) + 1
    merges = []
    while len(merges) < MERGES:
        pairs = {}
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        if not pairs:
            break
        best = max(sorted(pairs), key=lambda pair: pairs[pair])
        merges.append(best)
        merged = {}
        for word, count in words.items():
            out, i = [], 0
            while i < len(word):
                whole = word[i : i + 2] == best
                out.append("".join(best) if whole else word[i])
                i += 2 if whole else 1
            merged[tuple(out)] = merged.get(tuple(out), 0) + count
        words = merged
    letters = list(names.values())
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges


def random_texts(count):
    """Strings of letters, signs and what else Unicode has, without surrogates."""
    rng = random.Random(5)
    ranges = [(32, 126), (97, 122), (97, 122), (160, 591), (768, 879), (880, 1279), (1424, 1791), (2304, 2431)]
    ranges += [(8192, 8303), (8448, 8591), (12352, 12543), (19968, 20500), (44032, 44500), (64256, 64335), (127744, 128591)]
    texts = []
    for _ in range(count):
        low, high = rng.choice(ranges)
        pick = lambda: chr(rng.randint(low, high)) if rng.random() < 0.7 else rng.choice(" abcdeé'1.,\n")
        texts.append("".join(pick() for _ in range(rng.randint(1, 12))))
    return texts


ENCODERS = {
    # As Stable Diffusion 1's, with the end's number as old files have it.
    "one": dict(hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, eos_token_id=2),
    # As SDXL's second, with a projection.
    "two": dict(
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=4,
        num_attention_heads=4,
        hidden_act="gelu",
        projection_dim=12,
    ),
}


def encoder(name, vocab):
    end = vocab["<|endoftext|>"]
    settings = dict(vocab_size=len(vocab), bos_token_id=end - 1, eos_token_id=end, pad_token_id=1) | ENCODERS[name]
    settings |= dict(max_position_embeddings=TOKENS)
    config = CLIPTextConfig(**settings)
    model = (CLIPTextModelWithProjection if "projection_dim" in settings else CLIPTextModel)(config).eval()
    state = model.state_dict()
    shapes = {k: list(v.shape) for k, v in state.items() if v.is_floating_point()}
    # The names of published files, whatever this version calls its tensors.
    published = {k: k if k.startswith(("text_model.", "text_projection.")) else f"text_model.{k}" for k in shapes}
    for name, shape in shapes.items():
        state[name] = torch.from_numpy(weight(published[name], shape))
    model.load_state_dict(state)
    return model, settings, {published[k]: shape for k, shape in shapes.items()}


def main(folder):
    folder = pathlib.Path(folder)
    vocab, merges = vocabulary()
    files = folder / "tokenizer"
    files.mkdir(exist_ok=True)
    (files / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    (files / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    (files / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<|startoftext|>", "eos_token": {"content": "<|endoftext|>"}, "pad_token": "!"}) + "\n"
    )
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)
    tokens = [[text, tokenizer(text, add_special_tokens=False).input_ids] for text in ODD + random_texts(1000)]

    arrays, described = {}, {}
    models = {}
    for name in ENCODERS:
        models[name], config, shapes = encoder(name, vocab)
        described[name] = {"config": config, "tensors": shapes}
    padded = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS, pad_token="!")
    none = dict(vae=None, unet=None, scheduler=None)
    sd = StableDiffusionPipeline(
        **none, text_encoder=models["one"], tokenizer=tokenizer, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )
    xl = StableDiffusionXLPipeline(
        **none, text_encoder=models["one"], text_encoder_2=models["two"], tokenizer=tokenizer, tokenizer_2=padded,
        add_watermarker=False,
    )
    for i, (text, negative) in enumerate(TEXTS):
        with torch.no_grad():
            states, unwanted = sd.encode_prompt(text, "cpu", 1, True, negative)
            arrays[f"one.{i}.states"], arrays[f"one.{i}.negative"] = states[0], unwanted[0]
            found = xl.encode_prompt(text, device="cpu", do_classifier_free_guidance=True, negative_prompt=negative)
            for what, value in zip(("states", "negative", "pooled", "negative_pooled"), found):
                arrays[f"xl.{i}.{what}"] = value[0]
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in arrays.items()}
    safetensors.numpy.save_file(arrays, folder / "text.safetensors")
    text = json.dumps({"tokens": tokens, "texts": TEXTS, "encoders": described}, separators=(",", ":"))
    (folder / "text.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
