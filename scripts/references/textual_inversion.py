"""References for tests/textual_inversion.rs: embeddings of prompts with learnt words, as diffusers' pipelines give them,
with weights and vectors that both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm diffusers transformers regex safetensors
    venv/bin/python scripts/references/textual_inversion.py tests/fixtures
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from architectures import numbers
from text import TOKENS, encoder, vocabulary

# file: its tensors
FILES = {
    "toy": {"<cat-toy>": [24]},
    "easyneg": {"emb_params": [3, 24]},
    "night-style": {"clip_l": [2, 24], "clip_g": [2, 16]},
}
PROMPTS = [
    "a photograph of a <cat-toy>, sharp focus",
    "two<Cat-Toy>s on a table",
    "easyneg, blurry, bad anatomy",
    "the <cat-toy> and easyneg and a <cat-toy>",
]
XL_PROMPTS = ["a castle in night-style, sharp focus", "night-style", "a <cat-toy> in night-style"]
# Tokens that are kept.
SEEN = 20


def vectors(name, shape):
    return torch.from_numpy(numbers(name, int(np.prod(shape))).reshape(shape))


def main(folder):
    vocab, merges = vocabulary()
    none = dict(vae=None, unet=None, scheduler=None)
    tokenizers = [
        CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS, **pad) for pad in ({}, {"pad_token": "!"})
    ]
    arrays = {}
    with torch.no_grad():
        rest = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        sd = StableDiffusionPipeline(**none, **rest, text_encoder=encoder("one", vocab)[0], tokenizer=tokenizers[0])
        sd.load_textual_inversion({"<cat-toy>": vectors("<cat-toy>", [24])})
        sd.load_textual_inversion({"emb_params": vectors("emb_params", [3, 24])}, token="easyneg")
        for i, prompt in enumerate(PROMPTS):
            arrays[f"one.{i}.states"] = sd.encode_prompt(prompt, "cpu", 1, False)[0][0, :SEEN]
        tokenizers[0] = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)
        parts = [encoder(name, vocab)[0] for name in ("one", "two")]
        xl = StableDiffusionXLPipeline(
            **none, text_encoder=parts[0], text_encoder_2=parts[1], tokenizer=tokenizers[0], tokenizer_2=tokenizers[1],
            add_watermarker=False,
        )
        xl.load_textual_inversion({"<cat-toy>": vectors("<cat-toy>", [24])})
        for name, part, tokenizer in zip(("clip_l", "clip_g"), parts, tokenizers):
            file = {name: vectors(name, FILES["night-style"][name])}
            xl.load_textual_inversion(file, token="night-style", text_encoder=part, tokenizer=tokenizer)
        for i, prompt in enumerate(XL_PROMPTS):
            found = xl.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
            arrays[f"xl.{i}.states"], arrays[f"xl.{i}.pooled"] = found[0][0, :SEEN], found[2][0]
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in arrays.items()}
    folder = pathlib.Path(folder)
    safetensors.numpy.save_file(arrays, folder / "textual_inversion.safetensors")
    text = json.dumps({"files": FILES, "prompts": PROMPTS, "xl_prompts": XL_PROMPTS}, separators=(",", ":"))
    (folder / "textual_inversion.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
