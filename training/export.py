"""Write the trained networks in f16 as the two bundled models.

    python export.py --classifier runs/classifier/net.pt --unet runs/unet/state.pt --models ../models
"""
import argparse
import json
from pathlib import Path

import torch
from model import LABELS, LettersClassifier, scheduler, unet
from safetensors.torch import save_file

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("--classifier")
p.add_argument("--unet")
p.add_argument("--widths", default="16,48,96", help="of the UNet")
p.add_argument("--models", default="../models")
o = p.parse_args()

if o.classifier:
    to = Path(o.models) / "letters-classifier"
    to.mkdir(parents=True, exist_ok=True)
    net = LettersClassifier()
    if o.classifier != "untrained":
        net.load_state_dict(torch.load(o.classifier))
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items() if "num_batches" not in k}, to / "model.safetensors", {"format": "pt"})
    config = dict(architecture="LettersClassifier", in_channels=1, image_size=[32, 32], widths=[24, 48, 96], batch_norm_eps=1e-5,
                  mean=[0.5], std=[0.5], num_classes=len(LABELS), labels=list(LABELS))
    (to / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print("classifier", sum(q.numel() for q in net.parameters()), "parameters")

if o.unet:
    to = Path(o.models) / "letters-unet"
    net = unet(tuple(map(int, o.widths.split(","))))
    if o.unet != "untrained":
        state = torch.load(o.unet)
        net.load_state_dict(state["ema"])
        print("step", state["step"], "after", round(state["seconds"] / 60, 1), "minutes")
    net.half().save_pretrained(to)
    config = dict(scheduler().config)
    (to / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"} | {k: v for k, v in config.items() if k != "_use_default_values"}, indent=2) + "\n")
    print("unet", sum(q.numel() for q in net.parameters()), "parameters")

for f in Path(o.models).glob("letters-*/*.safetensors"):
    f.chmod(0o644)
