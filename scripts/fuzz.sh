#!/usr/bin/env bash
# Fuzzes the loaders of files that come from strangers: safetensors, ONNX, diffusers' and timm's configurations with
# their weights' names and shapes, schedulers, tokenizers, pictures; and of its own cache. What they do is in fuzz/targets.rs.
#
#   scripts/fuzz.sh [SECONDS] [TARGET]...     so long for each target, all of them by default; 300 seconds
#
# A target ends at the first input that panics, takes longer than ten seconds or more than 2 GB, and says where it lies; put
# it into tests/corpus/TARGET, which tests/corpus.rs replays, and mend the library. Inputs that take longer than a second are
# named too. New ones gather in fuzz/corpus.

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

seconds="${1:-300}"
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- safetensors onnx network schedule tokenizer picture kept

cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
# libFuzzer is C++.
have c++ || { have apt-get && apt_install g++; } || fail "no C++ compiler (c++) found"

# The coverage counters are flags that a stable compiler has but does not show. Without the address sanitizer, as the
# library's few unsafe lines map files: what is sought are panics, endless loops and memory without bounds.
export RUSTC_BOOTSTRAP=1
status=0
for target in "$@"; do
    mkdir -p "fuzz/corpus/$target"
    printf '\n== %s, %s s\n' "$target" "$seconds"
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "tests/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -report_slow_units=1 -rss_limit_mb=3072 -max_len=65536 \
        -print_final_stats=1 || status=1
done
exit "$status"
