#!/usr/bin/env bash
# Makes ONNX's conformance suite in target/onnx-suite, for tests/onnx_suite.rs: the pinned onnx package in a
# virtual environment of its own, which writes its cases. Does nothing where it is made already.
#
#   scripts/onnx_suite.sh      exits with 1, and says why, where Python or the packages cannot be had

set -euo pipefail
cd "$(dirname "$0")/.."

packages="onnx==1.23.2 numpy onnxruntime==1.32.0"
folder="${AQUATINT_ONNX_SUITE:-target/onnx-suite}"
venv="${CARGO_TARGET_DIR:-target}/onnx-venv"
stamp="$folder/made-by"
maker="$packages $(cat scripts/onnx_suite.py scripts/onnx_sweep.py scripts/onnx_sweep_sampled.py | cksum)"

say() { printf 'onnx_suite: %s\n' "$*" >&2; }

if [ -e "$folder/index.json" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$maker" ]; then
    exit 0
fi
python="$(command -v python3 || true)"
if [ -z "$python" ]; then
    say "no python3 found"
    exit 1
fi
if [ ! -x "$venv/bin/pip" ]; then
    rm -rf "$venv"
    # Debian keeps venv apart from Python.
    "$python" -m venv "$venv" >&2 || {
        rm -rf "$venv"
        say "python3 cannot make a virtual environment (Debian and Ubuntu: apt-get install python3-venv)"
        exit 1
    }
fi
# shellcheck disable=SC2086
"$venv/bin/pip" install --quiet --disable-pip-version-check $packages >&2 || {
    say "the packages could not be installed"
    exit 1
}
mkdir -p "$folder"
"$venv/bin/python" scripts/onnx_suite.py "$folder" >&2
"$venv/bin/python" scripts/onnx_sweep.py "$folder" >&2
printf '%s\n' "$maker" >"$stamp"
