#!/usr/bin/env bash
# Kernels and networks here and in other engines, each in turns with ours: one table, one file of results.
#
#   benches/peers/run.sh                       all engines
#   benches/peers/run.sh wonnx ncnn torch      only these
#   benches/peers/run.sh --quick               fewer turns
#
#   --items 'conv3-*,resnet50'    only items whose names match (src/bench/peers/items.rs has them)
#   --output FILE        results, added to if they are there [default: target/peers/results.json]
#   --prepare            build engines and write their files, measure nothing
#   --no-build           measure with what was built before
#   PYTHON=python3       a Python that has what benches/peers/requirements.txt lists, instead of one that is made (some GB)
#
# Engines: burn, meganeura, ncnn and wonnx on the same adapter; ncnn-cpu, onnxruntime, torch and tract on the CPU. One that
# cannot be built or does not start is skipped, and the reason is printed. Rust's are built here: minutes each,
# burn takes half an hour on two cores. Where there are several adapters, WGPU_ADAPTER_NAME says which.

set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/setup.sh

engines=()
options=()
output=
measure=yes
build=yes
while [ $# -gt 0 ]; do
    case "$1" in
    --quick) options+=(--quick) ;;
    --items) options+=(--items "${2:?--items PATTERN}") && shift ;;
    --output) output="${2:?--output FILE}" && shift ;;
    --prepare) measure=no ;;
    --no-build) build=no ;;
    burn | meganeura | ncnn | wonnx | ncnn-cpu | onnxruntime | torch | tract) engines+=("$1") ;;
    *) fail "no engine or option $1: burn meganeura ncnn wonnx ncnn-cpu onnxruntime torch tract," \
        "--quick --items --output --prepare --no-build" ;;
    esac
    shift
done
[ ${#engines[@]} -gt 0 ] || engines=(ncnn wonnx meganeura burn torch onnxruntime ncnn-cpu tract)

peers="$(realpath -m "${CARGO_TARGET_DIR:-target}")/peers"
items="$peers/items"
output="${output:-$peers/results.json}"
mkdir -p "$peers"

if [ -z "${PYTHON:-}" ]; then
    PYTHON="$peers/venv/bin/python"
    if [ "$build" = yes ]; then
        [ -x "$PYTHON" ] || python3 -m venv "$peers/venv"
        "$PYTHON" -m pip install --quiet --requirement benches/peers/requirements.txt
    fi
fi

# Ours: cargo says where it put the program.
if [ "$build" = yes ]; then
    cargo bench --locked --no-run --bench peers --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\/peers-[0-9a-f]*\)".*/\1/p' | tail -n 1 >"$peers/ours"
fi
ours="$(cat "$peers/ours" 2>/dev/null || true)"
[ -x "$ours" ] || fail "our side is not built; run this without --no-build first"

# The items' files, made anew when what makes them has changed.
stamp="$(cat src/bench/peers/items.rs src/bench/hashed.rs benches/peers/items.py benches/peers/export.py | cksum)"
if [ "$build" = yes ] && [ "$(cat "$items/stamp" 2>/dev/null || true)" != "$stamp" ]; then
    rm -rf "$items"
    "$ours" write "$items"
    # pnnx stands beside the Python that it was installed for.
    PATH="$(dirname "$PYTHON"):$PATH" "$PYTHON" benches/peers/export.py "$items" >&2
    echo "$stamp" >"$items/stamp"
fi

for engine in "${engines[@]}"; do
    printf '\n== %s\n' "$engine"
    case "$engine" in
    torch | onnxruntime) command=("$PYTHON" "benches/peers/${engine}_cpu.py") ;;
    ncnn) command=("$PYTHON" benches/peers/ncnn_engine.py vulkan) ;;
    ncnn-cpu) command=("$PYTHON" benches/peers/ncnn_engine.py cpu) ;;
    *)
        command=("$peers/$engine/release/peer_$engine")
        if [ "$build" = yes ] && ! CARGO_TARGET_DIR="$peers/$engine" cargo build --locked --release \
            --manifest-path "benches/peers/$engine/Cargo.toml"; then
            say "$engine is skipped: it does not build"
            continue
        fi
        if [ ! -x "${command[0]}" ]; then
            say "$engine is skipped: it is not built"
            continue
        fi
        ;;
    esac
    [ "$measure" = yes ] || continue
    "$ours" race "$items" "$output" "${options[@]}" "$engine" "${command[@]}" || say "$engine is skipped"
done

[ "$measure" = no ] || { [ ! -f "$output" ] || "$ours" show "$output"; }
