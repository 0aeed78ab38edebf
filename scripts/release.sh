#!/usr/bin/env bash
# Builds the program so that whoever builds it again gets the same bytes: for one revision, compiler and linker nothing of the
# folder, the user or the time gets in.
#
#   scripts/release.sh             the program, its checksum and what it was built by
#   scripts/release.sh --check     two clones of what is checked out, in two folders, and whether they give the same

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

check() {
    local name
    # Not local: it is read when the shell ends.
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    for name in one another/of-a-longer-name; do
        mkdir -p "$(dirname "$folder/$name")"
        git clone --quiet --no-hardlinks . "$folder/$name"
        CARGO_TARGET_DIR='' env -u CARGO_TARGET_DIR "$folder/$name/scripts/release.sh"
        cp "$folder/$name/target/release/aquatint" "$folder/$(basename "$name").program"
        rm -rf "$folder/${name:?}/target"
    done
    (cd "$folder" && sha256sum ./*.program)
    cmp "$folder"/*.program || fail "two builds of the same sources are not the same"
    printf 'figure release.reproducible: two builds in two folders, the same %s bytes\n' \
        "$(stat -c %s "$folder/one.program")"
}

if [ "${1:-}" = --check ]; then
    check
    exit
fi

cargo_home="${CARGO_HOME:-$HOME/.cargo}"
# Where files lay is told by messages of panics. `trim-paths` would do this, and is not stable yet.
export CARGO_ENCODED_RUSTFLAGS=""
join() { CARGO_ENCODED_RUSTFLAGS+="${CARGO_ENCODED_RUSTFLAGS:+$'\x1f'}--remap-path-prefix=$1=$2"; }
join "$(rustc --print sysroot)/lib/rustlib/src/rust" /rust
join "$cargo_home" /cargo
join "$PWD" /aquatint
# C of dependencies (ring) does the same with its own.
export CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/aquatint"
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH CARGO_INCREMENTAL=0

cargo build --release --locked
program="${CARGO_TARGET_DIR:-target}/release/aquatint"
rustc --version
cc --version | head -n 1
sha256sum "$program"
if grep -qaF -e "$PWD" -e "$cargo_home" -e "$(rustc --print sysroot)" "$program"; then
    fail "the program names a folder of this machine"
fi
