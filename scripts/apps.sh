#!/usr/bin/env bash
# Builds the examples that are packages of their own, with their frameworks, and runs them without a window. Each compares
# its picture with what the library makes of the same input by itself.
#
#   scripts/apps.sh [NAME...]      egui_viewer and bevy_node, if none is named

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

# One folder for both, away from the library's own builds; and nothing is left among the user's own files.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/apps}"
export AQUATINT_CACHE="$CARGO_TARGET_DIR/cache"
pictures="$CARGO_TARGET_DIR/pictures"
mkdir -p "$pictures"

build() {
    cargo fmt --check --manifest-path "examples/$1/Cargo.toml"
    cargo build --locked --manifest-path "examples/$1/Cargo.toml" "${@:2}"
}

egui_viewer() {
    build egui_viewer
    local model
    for model in style-engraving denoise upscale-x2 letters-detector letters-segmenter; do
        printf '\negui_viewer: %s\n' "$model"
        "$CARGO_TARGET_DIR/debug/egui_viewer" --model "$model" --headless "$pictures/$model.png"
    done
    printf '\negui_viewer: no model of this name\n'
    if "$CARGO_TARGET_DIR/debug/egui_viewer" --model nothing --headless "$pictures/error.png"; then
        printf 'a model that is not there was taken\n' >&2
        return 1
    fi
}

bevy_node() {
    # Bevy's shader language asks for a newer Rust than it takes.
    build bevy_node --ignore-rust-version
    printf '\nbevy_node\n'
    "$CARGO_TARGET_DIR/debug/bevy_node" --out "$pictures/bevy.png"
}

[ $# -gt 0 ] || set -- egui_viewer bevy_node
for app in "$@"; do
    "$app"
done
printf '\nthe pictures are in %s\n' "$pictures"
