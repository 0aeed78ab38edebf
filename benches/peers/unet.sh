#!/usr/bin/env bash
# Times one step of the bundled UNet here and in PyTorch, in turns in one run,
# and prints where our time goes.
#
#   benches/peers/unet.sh              makes a Python environment in target/peers (PyTorch: some GB)
#   PYTHON=python3 benches/peers/unet.sh     uses one that has PyTorch and diffusers
#   BATCH=1 benches/peers/unet.sh            another number of pictures than 36

set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/setup.sh

if [ -z "${PYTHON:-}" ]; then
    venv="${CARGO_TARGET_DIR:-target}/peers"
    PYTHON="$venv/bin/python"
    [ -x "$PYTHON" ] || python3 -m venv "$venv"
    "$PYTHON" -m pip install --quiet --requirement benches/peers/requirements.txt
fi

cargo bench --locked --bench unet_step -- --batch "${BATCH:-36}" --peer "$PYTHON" benches/peers/unet_torch.py
