#!/usr/bin/env bash
# Sets this machine up where it must be, then runs every test.
#
#   scripts/test.sh

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

# No test may pass by not finding a device.
export REQUIRE_GPU=1

# Nothing is left among the user's own files, and nothing there decides which kernels are tested.
export AQUATINT_CACHE="$PWD/target/cache"

# Nor by not having ONNX's conformance suite, where it can be made.
if scripts/onnx_suite.sh; then
    export REQUIRE_ONNX_SUITE=1
else
    printf 'no ONNX suite: its tests are SKIPPED\n' >&2
fi

# tests/examples.rs runs them.
cargo build --locked --examples

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --lib --bins --tests
else
    cargo test --locked --lib --bins --tests
fi
cargo test --locked --doc

# Every network and kernel of the quick suite, held to its reference. Times do not matter here.
printf '\nquick benchmark\n'
# The program that the tests ran: built by itself, without what windows of examples need, it would be another one.
"${CARGO_TARGET_DIR:-target}/debug/aquatint" bench --suite quick --row-limit 0.2

printf '\nall tests passed\n'
