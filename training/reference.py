"""Write small fixtures from the exported weights, computed by PyTorch and diffusers in f32.

    python reference.py --models ../models --out ../tests/fixtures --data glyphs.npz
"""
import argparse
from pathlib import Path

import torch
from evaluate import load_classifier, load_unet, make_scheduler
from model import LABELS, UNCONDITIONAL, load
from safetensors.torch import save_file

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("--models", default="../models", type=Path)
p.add_argument("--out", default="../tests/fixtures", type=Path)
p.add_argument("--data", default="glyphs.npz")
o = p.parse_args()
torch.set_num_threads(1)
o.out.mkdir(parents=True, exist_ok=True)
net, config = load_unet(o.models / "letters-unet")
g = torch.Generator().manual_seed(7)
t = {"sample": torch.randn(2, 1, 32, 32, generator=g), "timestep": torch.tensor([25.0, 700.0]), "class_labels": torch.tensor([LABELS.index("G"), UNCONDITIONAL])}
t["loop_init"], t["loop_labels"] = torch.randn(2, 1, 32, 32, generator=g), torch.tensor([LABELS.index("R"), LABELS.index("5")])
with torch.no_grad():
    t["output"] = net(t["sample"], t["timestep"], class_labels=t["class_labels"]).sample
    for name, kind in (("loop", "ddim"), ("dpm", "dpm")):
        s = make_scheduler(kind, config)
        s.set_timesteps(10)
        x, y, latents = t["loop_init"], t["loop_labels"], []
        for step in s.timesteps:
            c, u = net(torch.cat([x, x]), step, class_labels=torch.cat([y, torch.full_like(y, UNCONDITIONAL)])).sample.chunk(2)
            x = s.step(u + 1.5 * (c - u), step, x).prev_sample
            latents.append(x)
        t[name + "_timesteps"], t[name + "_latents"] = s.timesteps, torch.stack(latents)  # [10,2,1,32,32]: after each step
save_file({k: v.float().contiguous() for k, v in t.items()}, o.out / "letters_unet.safetensors")

classifier = load_classifier(o.models / "letters-classifier")
X, Y, _ = load(o.data, True)
x = X[[int((Y == LABELS.index(c)).nonzero()[3]) for c in "AQ27"]]
with torch.no_grad():
    save_file({"input": x.contiguous(), "logits": classifier(x).contiguous()}, o.out / "letters_classifier.safetensors")
for f in o.out.glob("letters_*.safetensors"):
    f.chmod(0o644)
    print(f.name, f.stat().st_size, "bytes")
