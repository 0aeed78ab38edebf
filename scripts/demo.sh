#!/usr/bin/env bash
# Sets this machine up where it must be, builds aquatint, draws a word out of
# noise and reads it back.
#
#   scripts/demo.sh [WORD]      capital letters and digits; AQUATINT if not given

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

word="${1:-AQUATINT}"
cargo build --release --locked
aquatint="${CARGO_TARGET_DIR:-target}/release/aquatint"

rm -rf out/letters
"$aquatint" generate "$word" --out out/word.png
"$aquatint" generate "$word" --out out/letters/
"$aquatint" classify out/letters/*.png

printf '\nThe word as one picture:   %s\n' "$PWD/out/word.png"
printf 'The letters, one by one:   %s\n' "$PWD/out/letters/"
