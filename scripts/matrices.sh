#!/usr/bin/env bash
# Runs the tests of kernels with cooperative matrices on a software adapter that has them: that of a newer Mesa than
# most machines have, out of Debian's packages, unpacked under target/mesa and installed nowhere.
#
#   scripts/matrices.sh                       the tests
#   scripts/matrices.sh run PROGRAM ARG...    a program with that Mesa, as target/debug/aquatint devices
#   scripts/matrices.sh unpack                that Mesa alone
#
# Linux on x86-64, with dpkg-deb, gpgv and python3; some 85 MB are fetched once. The first time takes minutes.

set -euo pipefail
cd "$(dirname "$0")/.."

folder="$PWD/target/mesa"
libraries="$folder/usr/lib/x86_64-linux-gnu"

if [ "${1:-}" = run ]; then
    shift
    # These kernels take this driver seconds to compile.
    export MESA_SHADER_CACHE_DIR="$folder/cache"
    export VK_DRIVER_FILES="$folder/usr/share/vulkan/icd.d/lvp_icd.json"
    # Only those that scripts/validation.sh asks for.
    [ -n "${VK_INSTANCE_LAYERS:-}" ] || export VK_LOADER_LAYERS_DISABLE='*'
    exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$@"
fi

if [ ! -e "$folder/done" ] || [ ! -e "$libraries/libVkLayer_khronos_validation.so" ]; then
    rm -rf "$folder"
    python3 scripts/newest_mesa.py "$folder"
    # Tests find SPIR-V's validator among other programs; it wants the new C library too.
    mkdir "$folder/programs"
    printf '#!/bin/sh\nexec "%s" run "%s" "$@"\n' "$PWD/scripts/matrices.sh" "$folder/usr/bin/spirv-val" \
        >"$folder/programs/spirv-val"
    chmod +x "$folder/programs/spirv-val"
    touch "$folder/done"
fi
if [ "${1:-}" = unpack ]; then
    exit
fi

# The new C library is loaded with each test, not with cargo.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/scripts/matrices.sh run"
export REQUIRE_GPU=1 REQUIRE_MATRICES=1
export AQUATINT_CACHE="$PWD/target/cache"
export PATH="$folder/programs:$PATH"
cargo test --locked --test ops matrices
cargo test --locked --lib spirv
