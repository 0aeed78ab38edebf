"""Write the trained denoiser of path-traced frames in f16 as a bundled model, and a small fixture computed by PyTorch in f32 from those weights.

    python export_path_denoise.py --run runs/path-denoise --data scenes --models ../models --fixtures ../tests/fixtures
"""
import argparse
from pathlib import Path

import torch
from evaluate_path_denoise import bundled
from safetensors.torch import save_file
from train_path_denoise import PathDenoise, exposure, frame, scenes

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("--run", type=Path, help="folder of the training script's results; without it only the fixture is written")
p.add_argument("--data", type=Path, default="scenes")
p.add_argument("--models", default="../models", type=Path)
p.add_argument("--fixtures", default="../tests/fixtures", type=Path)
o = p.parse_args()

file = o.models / "path-denoise" / "model.safetensors"
if o.run:
    net = PathDenoise()
    net.load_state_dict(torch.load(o.run / "net.pt"))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in net.state_dict().items()}, file, {"format": "pt"})
    file.chmod(0o644)
    print(sum(q.numel() for q in net.parameters()), "parameters,", file.stat().st_size, "bytes")

# Odd sides, a lamp among what is seen, two samples a pixel; and values that no frame should have.
noisy, target = scenes(o.data / "heldout")["cornell-0000"]
colour, albedo, normal = (v[:, :, 2:39, 40:91].contiguous() for v in frame(noisy, 0, 2, exposure(target, 0.35)))
colour[0, :, 5, 7], colour[0, 1, 20, 30], albedo[0, 0, 9, 40], normal[0, 2, 30, 3] = float("inf"), float("nan"), float("nan"), float("nan")
colour[0, 0, 12, 12], albedo[0, 1, 14, 9], normal[0, 0, 18, 44] = -5.0, 7.0, float("-inf")
out = bundled(o.models)(colour, albedo, normal)
assert out.isfinite().all()
file = o.fixtures / "path_denoise.safetensors"
save_file({"color": colour, "albedo": albedo, "normal": normal, "denoised": out.contiguous()}, file)
file.chmod(0o644)
print("fixture", file.stat().st_size, "bytes, up to", round(out.max().item(), 2))
