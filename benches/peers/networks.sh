#!/usr/bin/env bash
# Times ResNet-50, MobileNetV2 and EfficientNet-B0 here and in other engines, each in turns with ours in one run.
#
#   benches/peers/networks.sh                    burn and wonnx on the same adapter, PyTorch and onnxruntime on the CPU
#   benches/peers/networks.sh wonnx              only this one
#   PYTHON=python3 benches/peers/networks.sh     uses a Python that has PyTorch, torchvision and onnx
#
# It builds burn and wonnx, which takes some minutes, half an hour on two cores.

set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/setup.sh

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
peers="$target/peers"
if [ -z "${PYTHON:-}" ]; then
    PYTHON="$peers/bin/python"
    [ -x "$PYTHON" ] || python3 -m venv "$peers"
    "$PYTHON" -m pip install --quiet --requirement benches/peers/requirements.txt
fi

[ $# -gt 0 ] || set -- burn wonnx torch onnxruntime
for peer in "$@"; do
    echo "== $peer"
    case "$peer" in
    torch) program=("$PYTHON" benches/peers/network_torch.py) ;;
    onnxruntime) program=("$PYTHON" benches/peers/network_onnxruntime.py) ;;
    burn | wonnx)
        CARGO_TARGET_DIR="$peers/$peer" cargo build --release --manifest-path "benches/peers/$peer/Cargo.toml"
        program=("$peers/$peer/release/${peer}_network")
        ;;
    *) echo "no peer $peer: burn, wonnx, torch, onnxruntime" >&2 && exit 2 ;;
    esac
    case "$peer" in
    wonnx | onnxruntime)
        "$PYTHON" benches/peers/network_onnx.py "$peers/onnx" resnet50 mobilenet_v2 efficientnet_b0
        program+=("$peers/onnx")
        ;;
    esac
    cargo bench --locked --bench networks -- --peer "${program[@]}"
done
