"""References for tests/lora/sd3.rs: T5 and the transformer of Stable Diffusion 3 with adapters, as PEFT computes them,
with weights and adapters that both sides make from a hash of their names.

    python3 -m venv venv && venv/bin/pip install torch diffusers transformers peft tokenizers regex safetensors scipy
    venv/bin/python scripts/references/lora_t5.py tests/fixtures
"""

import json
import pathlib
import sys

import numpy as np
import peft
import safetensors.numpy
import torch
import transformers
from diffusers import SD3Transformer2DModel

import text
from latent import fill, last, picture
from lora import ALPHA, factors, kohya_names, layers, peft_names, rank, values
from sd3 import T5, TOKENS, TRANSFORMERS

# name: strength
CASES = {"peft": 1.0, "kohya": -0.6, "alone": 0.8}


def t5(vocabulary):
    model = transformers.T5EncoderModel(transformers.T5Config(vocab_size=vocabulary, **T5)).eval()
    shapes = fill(model)
    # Tied: whichever of the two was filled last counts.
    model.shared.weight.data = torch.from_numpy(text.weight("shared.weight", shapes["shared.weight"]))
    model.encoder.embed_tokens.weight = model.shared.weight
    return model


def with_adapter(model, found, keys, strength, alpha):
    """The model with an adapter, of which `keys` gives the names of a layer's factors in the file."""
    options = dict(r=4, lora_alpha=alpha or 4, target_modules=list(found), init_lora_weights=False)
    model = peft.inject_adapter_in_model(peft.LoraConfig(**options), model)
    for path, shape in found.items():
        layer = model.get_submodule(path)
        for part, (name, shape) in zip((layer.lora_A, layer.lora_B), zip(keys(path), factors(shape, rank(path)))):
            part["default"].weight.data = torch.from_numpy(np.ascontiguousarray(values(name, shape)))
        layer.scale_layer(strength)
    return model.eval()


def main(folder):
    folder = pathlib.Path(folder)
    vocabulary = json.loads((folder / "sd3.json").read_text())["parts"]["t5"]["config"]["vocab_size"]
    options, size = TRANSFORMERS["tiny"]
    ids = torch.arange(24).reshape(2, 12) * 7 % vocabulary
    arrays, files = {}, {}
    spelled = {
        "peft": lambda path: peft_names("text_encoder_3", path),
        "kohya": lambda path: kohya_names("lora_te3", path),
        # PEFT's own file, with alpha beside it.
        "alone": lambda path: peft_names("base_model.model", path),
    }

    def states(model):
        with torch.no_grad():
            return model(ids)[0].numpy()

    plain = states(t5(vocabulary))
    for name, strength in CASES.items():
        model = t5(vocabulary)
        wanted = ("SelfAttention.", "DenseReluDense.") if name == "peft" else ("block.1.layer.0.SelfAttention.", "wo", "wi_1")
        found = {path: shape for path, shape in layers(model, wanted).items() if "bias" not in path}
        shapes = {}
        for path, shape in found.items():
            shapes |= dict(zip(spelled[name](path), [*factors(shape, rank(path)), []]))
        alpha = None if name == "peft" else ALPHA
        arrays[f"{name}.states"] = states(with_adapter(model, found, spelled[name], strength, alpha))
        files[name] = {"tensors": shapes, "strength": strength, "layers": len(found)}
        print(name, len(found), "layers change", np.abs(arrays[f"{name}.states"] - plain).max() / np.ptp(plain))

    model = SD3Transformer2DModel(**options).eval()
    fill(model)
    found = layers(model, ("attn", "ff", "norm", "proj", "embedder"))
    shapes = {}
    for path, shape in found.items():
        shapes |= dict(zip(peft_names("transformer", path), factors(shape, rank(path))))
    told = dict(
        encoder_hidden_states=picture("text", 2, TOKENS, model.config.joint_attention_dim),
        pooled_projections=picture("pooled", 2, model.config.pooled_projection_dim),
        timestep=torch.tensor([981.5, 7.0]),
    )
    with torch.no_grad():
        x = picture("x", 2, model.config.in_channels, *size)
        before = last(model(x, **told).sample)
        model = with_adapter(model, found, lambda path: peft_names("transformer", path), 0.7, None)
        arrays["transformer.output"] = last(model(x, **told).sample)
    # The same file has T5's.
    files["peft"]["tensors"] |= shapes
    files["peft"]["layers"] += len(found)
    files["peft"]["transformer"] = 0.7
    print("transformer", len(found), "layers change", np.abs(arrays["transformer.output"] - before).max() / np.ptp(before))
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    safetensors.numpy.save_file(arrays, folder / "lora_t5.safetensors")
    described = {"ids": ids.flatten().tolist(), "alpha": ALPHA, "files": files}
    (folder / "lora_t5.json").write_text(json.dumps(described, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
