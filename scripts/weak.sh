#!/usr/bin/env bash
# Runs the tests that use a device on one that plays a weaker one, or one with other subgroups.
#
#   scripts/weak.sh [--sample N] [--tests "NAME..."] [PROFILE...]     all profiles and tests, if none is named
#   scripts/weak.sh --list                                            what profiles there are
#
# --sample N takes one case in N of tests/ops. What a weaker device lacks is taken from any device (AQUATINT_AS_IF) before it is
# opened, so that wgpu refuses what goes beyond. Sizes of subgroups are those of Mesa's lavapipe, whose vectors can have 128,
# 256 or 512 bits; where the device is another one, these profiles are SKIPPED. Larger ones are played by tests/ops/subgroups.rs.

set -euo pipefail
cd "$(dirname "$0")/.."

# Name, what the device plays, bits of lavapipe's vectors.
profiles() {
    cat <<'LIST'
webgpu       webgpu
bindings     max-binding=128MiB,max-buffer=256MiB
bare         no-f16,no-subgroups,no-timestamps,shared=16KiB
discrete     class=discrete
integrated   class=integrated,no-subgroups,shared=16KiB,invocations=256
subgroups-4  -  128
subgroups-8  -  256
subgroups-16 -  512
LIST
}

sample=1
tests="ops engine frame models bundled_vision tasks temporal architectures detectors unet2d path_denoise pipelines checkpoints
    sd3 conditions control lora memory doctor"
while [ $# -gt 0 ]; do
    case "$1" in
        --list) profiles && exit ;;
        --sample) sample="$2" && shift 2 ;;
        --tests) tests="$2" && shift 2 ;;
        -*) printf 'weak: no such option: %s\n' "$1" >&2 && exit 2 ;;
        *) break ;;
    esac
done
. scripts/setup.sh
[ $# -gt 0 ] || mapfile -t names < <(profiles | cut -d ' ' -f 1)
[ $# -eq 0 ] || names=("$@")

export REQUIRE_GPU=1 AQUATINT_TEST_SAMPLE="$sample"
targets=()
for test in $tests; do
    targets+=(--test "$test")
done
# With what tests need of crates, as tests build it: by itself it would be another program, with all crates made anew.
cargo test --locked --no-run "${targets[@]}"
program="${CARGO_TARGET_DIR:-target}/debug/aquatint"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

# Runs what follows as a profile says, with a cache of its own for the driver, which would hand out code for subgroups of another size.
as() {
    local cache="$PWD/target/cache-$name"
    mkdir -p "$cache"
    if [ "$vector" != "" ]; then
        export LP_NATIVE_VECTOR_WIDTH="$vector" MESA_SHADER_CACHE_DIR="$cache/mesa"
    fi
    if [ "$as_if" != - ]; then export AQUATINT_AS_IF="$as_if"; fi
    AQUATINT_CACHE="$cache" "$@"
}

status=0
for wanted in "${names[@]}"; do
    read -r name as_if vector < <(profiles | awk -v name="$wanted" '$1 == name') ||
        fail "no such profile: $wanted; there are: $(profiles | cut -d ' ' -f 1 | tr '\n' ' ')"
    played="$as_if"
    if [ -n "$vector" ]; then played="vectors of $vector bits"; fi
    printf '\n== %s: %s\n' "$name" "$played"
    if [ -n "$vector" ]; then
        found="$( (as "$program" devices --json) | tr -d ' \n' | sed -n 's/.*"subgroup_size":\[\([0-9]*\),.*/\1/p')"
        if [ "$found" != "$((vector / 32))" ]; then
            printf 'SKIPPED: subgroups have %s invocations whatever is asked for\n' "${found:-?}"
            printf 'figure weak.%s: skipped, subgroups have %s invocations\n' "$name" "${found:-?}"
            continue
        fi
    fi
    if cargo nextest --version >/dev/null 2>&1; then
        run=(cargo nextest run --locked --no-fail-fast "${targets[@]}")
    else
        run=(cargo test --locked --no-fail-fast "${targets[@]}")
    fi
    # Mesa 22.3's rasteriser ends in LLVM (llvm::ConstantVector::getImpl) when it compiles a fragment shader for 512 bits, and these
    # two tests draw a depth buffer with one of theirs.
    if [ "$vector" = 512 ]; then
        printf 'SKIPPED: depth buffers that are drawn: the driver rasterises no vectors of 512 bits\n'
        run+=(-- --skip depth::depths_as_they_are --skip depth::distances_of_projections)
    fi
    if (as "${run[@]}") >"$log" 2>&1; then
        said="$(grep -E '^ +Summary|^test result' "$log" | tail -n 1)"
        printf '%s\n' "$said"
        printf 'figure weak.%s: %s\n' "$name" "$(sed 's/.*Summary \[[^]]*\] //; s/^test result: //' <<<"$said")"
    else
        cat "$log"
        status=1
    fi
done
exit "$status"
