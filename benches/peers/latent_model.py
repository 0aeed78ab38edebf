"""Stable Diffusion 1.5 with random weights: its configurations, diffusers' initial weights, f32 (4 GB).

    latent_model.py FOLDER
"""
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

folder = Path(sys.argv[1])
torch.manual_seed(0)
with torch.inference_mode():
    UNet2DConditionModel(sample_size=64, cross_attention_dim=768).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    ).save_pretrained(folder / "vae")
    CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    ).save_pretrained(folder / "text_encoder")
DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
).save_pretrained(folder / "scheduler")
tokenizer = folder / "tokenizer"
tokenizer.mkdir(exist_ok=True)
merges = Path(__file__).resolve().parents[2] / "models/clip-tokenizer/merges.txt"
(tokenizer / "merges.txt").write_text(merges.read_text())
# The vocabulary follows from the merges.
plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
merged = [line.replace(" ", "") for line in merges.read_text().splitlines()[1:]]
words = [*letters, *(c + "</w>" for c in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
(tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
(tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
(tokenizer / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))
# Last, as it says that the folder is whole.
(folder / "model_index.json").write_text(json.dumps({
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}, indent=1))
