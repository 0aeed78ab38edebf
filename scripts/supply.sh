#!/usr/bin/env bash
# What this package is made of, and whether it may be: licences, sources, versions and known faults of all dependencies, by
# cargo-deny (deny.toml), and a bill of materials (CycloneDX) of what the program links.
#
#   scripts/supply.sh [FOLDER]          checks, and writes the bill to FOLDER, target/supply by default
#   scripts/supply.sh --if-installed    checks alone, where cargo-deny is there already
#
# The bill is a function of Cargo.lock and Cargo.toml, to the byte; it is not kept in the repository, where it would say the same
# in another way. Known faults are in a database on GitHub; where that cannot be reached, that is said, and REQUIRE_ADVISORIES=1
# makes it a failure.

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

tools="$PWD/target/tools"
PATH="$tools/bin:$PATH"


if [ "${1:-}" = --if-installed ] && ! have cargo-deny; then
    printf 'cargo-deny is not installed: dependencies are not checked here, scripts/supply.sh does it\n' >&2
    exit 0
fi
have cargo-deny ||
    cargo install --locked --root "$tools" --target-dir "$tools/build" cargo-deny@0.20.2 --no-default-features

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
status=0

# What those in fuzz/ and examples/ have that is not wanted here would be theirs alone, but the terms are the same.
for package in . fuzz examples/egui_viewer examples/bevy_node; do
    name="$(sed -n 's/^name = "\(.*\)"/\1/p' "$package/Cargo.toml" | head -n 1)"
    printf '\n== %s\n' "$name"
    # Bevy's shader language asks for a newer Rust than it takes; nothing is built.
    if cargo deny --locked --config "$PWD/deny.toml" --manifest-path "$package/Cargo.toml" \
        check --hide-inclusion-graph licenses bans sources >"$log" 2>&1; then
        grep -c '^warning\[duplicate\]' "$log" | sed "s|^|figure supply.duplicates.$name: |" || true
        tail -n 1 "$log"
    else
        cat "$log"
        status=1
    fi
    printf 'figure supply.packages.%s: %s packages, terms and sources as deny.toml has them\n' "$name" "$(grep -c '^\[\[package\]\]' "$package/Cargo.lock")"
done

if [ "${1:-}" = --if-installed ]; then
    exit "$status"
fi

printf '\n== known faults\n'
if cargo deny --locked fetch db >"$log" 2>&1; then
    cargo deny --locked check advisories || status=1
    printf 'figure supply.advisories: checked\n'
elif [ -n "${REQUIRE_ADVISORIES:-}" ]; then
    cat "$log"
    status=1
else
    printf 'SKIPPED: the database of known faults cannot be reached\n'
    printf 'figure supply.advisories: not checked, the database cannot be reached\n'
fi

printf '\n== bill of materials\n'
folder="${1:-target/supply}"
mkdir -p "$folder"
python3 scripts/bill_of_materials.py "$folder/aquatint.cdx.json" || status=1
sha256sum "$folder/aquatint.cdx.json"
exit "$status"
