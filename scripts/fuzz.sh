#!/usr/bin/env bash
# Fuzzes the loaders of files that come from strangers: safetensors, ONNX with its external values, diffusers' and timm's
# configurations with their weights' names and shapes, single-file checkpoints, whole folders, adapters and learnt words,
# schedulers, tokenizers, pictures; files of its own cache; and what is made of them: random graphs, from the passes to the
# plan, and variants of kernels. What the targets do is in fuzz/targets.rs.
#
#   scripts/fuzz.sh [SECONDS] [TARGET]...                  so long for each target, all of them by default; 300 seconds
#   SANITIZER=address scripts/fuzz.sh [SECONDS] [TARGET]...   with AddressSanitizer in the library and all that it depends on
#
# A target ends at the first input that panics, takes longer than ten seconds or more than 2 GB, and says where it lies; put
# it into tests/corpus/TARGET, which tests/corpus.rs replays, and mend the library. Inputs that take longer than a second are
# named too. New ones gather in fuzz/corpus.

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

seconds="${1:-300}"
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- safetensors onnx external network checkpoint folder lora schedule tokenizer picture kept graph linker
sanitizer="${SANITIZER:-none}"

cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
# libFuzzer is C++.
have c++ || { have apt-get && apt_install g++; } || fail "no C++ compiler (c++) found"

# The coverage counters are flags that a stable compiler has but does not show, and so is AddressSanitizer, whose runtime
# comes with it (librustc-stable_rt.asan.a). Without it by default: the library's few unsafe lines map files, and what is
# sought are panics, endless loops and memory without bounds. With it everything is built anew, runs take twice as long, and
# its own books count as memory.
export RUSTC_BOOTSTRAP=1
case "$sanitizer" in
none) memory=3072 ;;
address) memory=8192 ;;
*) fail "SANITIZER=$sanitizer: expected none or address" ;;
esac
status=0
for target in "$@"; do
    mkdir -p "fuzz/corpus/$target"
    printf '\n== %s, %s s\n' "$target" "$seconds"
    cargo fuzz run --sanitizer "$sanitizer" "$target" "fuzz/corpus/$target" "tests/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -report_slow_units=1 -rss_limit_mb="$memory" -max_len=65536 \
        -print_final_stats=1 || status=1
done
exit "$status"
