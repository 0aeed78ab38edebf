#!/usr/bin/env bash
# Times the parts of Stable Diffusion 1.5 (random weights) here and in PyTorch and onnxruntime, each in turns with ours in
# one run.
#
#   benches/peers/latent.sh                         unet:32 unet:64 vae:32 text:77
#   benches/peers/latent.sh unet:32                 only this part
#   PEERS=onnxruntime benches/peers/latent.sh       only this peer
#   MODEL=FOLDER benches/peers/latent.sh            a model that is there already
#   PYTHON=python3 benches/peers/latent.sh          uses a Python that has PyTorch, diffusers, transformers and onnxruntime
#
# It makes a model of 4 GB in target/peers, and for onnxruntime as much again for each size of the UNet.

set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/setup.sh

peers="$(realpath -m "${CARGO_TARGET_DIR:-target}")/peers"
if [ -z "${PYTHON:-}" ]; then
    PYTHON="$peers/bin/python"
    [ -x "$PYTHON" ] || python3 -m venv "$peers"
    "$PYTHON" -m pip install --quiet --requirement benches/peers/requirements.txt
fi
model="${MODEL:-$peers/stable-diffusion-random}"
[ -e "$model/model_index.json" ] || "$PYTHON" benches/peers/latent_model.py "$model"
[ $# -gt 0 ] || set -- unet:32 unet:64 vae:32 text:77
for peer in ${PEERS:-torch onnxruntime}; do
    echo "== $peer"
    case "$peer" in
    torch) program=("$PYTHON" benches/peers/latent_torch.py) ;;
    onnxruntime) program=("$PYTHON" benches/peers/latent_onnxruntime.py "$peers/latent-onnx") ;;
    *) echo "no peer $peer: torch, onnxruntime" >&2 && exit 2 ;;
    esac
    cargo bench --locked --bench latent -- "$model" "$@" --peer "${program[@]}"
done
