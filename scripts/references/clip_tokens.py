"""References for tests/text.rs: tokens of transformers' CLIP tokenizer with the vocabulary that is bundled.

    venv/bin/python scripts/references/clip_tokens.py tests/fixtures        (the environment of text.py)
"""

import json
import pathlib
import sys

from transformers import CLIPTokenizer

from text import ODD, byte_names, random_texts

MERGES = pathlib.Path(__file__).parents[2] / "models/clip-tokenizer/merges.txt"
PROMPTS = [
    "a photo of a cat",
    "a photograph of an astronaut riding a horse",
    "portrait of a cyberpunk samurai, artstation, 8k, f/1.8, 35mm, by greg rutkowski",
    "masterpiece, best quality, 1girl, solo, detailed background, looking at viewer",
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, jpeg artifacts, signature, watermark",
]


def main(folder):
    merges = [tuple(line.split()) for line in MERGES.read_text().splitlines()[1:]]
    letters = list(byte_names().values())
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    assert len(vocab) == 49408
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges)
    texts = PROMPTS + ODD + random_texts(1000)
    found = [[text, tokenizer(text, add_special_tokens=False).input_ids] for text in texts]
    path = pathlib.Path(folder) / "clip_tokens.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
