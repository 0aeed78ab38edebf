#!/usr/bin/env bash
# Times the parts of Stable Diffusion 1.5 (random weights) here and in PyTorch, in turns in one run.
#
#   benches/peers/latent.sh                         unet:32 unet:64 vae:32 text:77
#   benches/peers/latent.sh unet:32                 only this part
#   PYTHON=python3 benches/peers/latent.sh          uses a Python that has PyTorch, diffusers and transformers
#
# It makes a model of 4 GB in target/peers.

set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/setup.sh

peers="$(realpath -m "${CARGO_TARGET_DIR:-target}")/peers"
if [ -z "${PYTHON:-}" ]; then
    PYTHON="$peers/bin/python"
    [ -x "$PYTHON" ] || python3 -m venv "$peers"
    "$PYTHON" -m pip install --quiet --requirement benches/peers/requirements.txt
fi
model="$peers/stable-diffusion-random"
[ -e "$model/model_index.json" ] || "$PYTHON" benches/peers/latent_model.py "$model"
[ $# -gt 0 ] || set -- unet:32 unet:64 vae:32 text:77
cargo bench --locked --bench latent -- "$model" "$@" --peer "$PYTHON" benches/peers/latent_torch.py
