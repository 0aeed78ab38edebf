#!/usr/bin/env bash
# Runs the tests that use a device under Vulkan's validation layers, core and synchronisation, and fails on any message that is
# not explained in scripts/validation_known.txt.
#
#   scripts/validation.sh [TEST...]     ops, engine, frame, models and others, if none is named
#
# Linux with dpkg-deb; the layers are taken from the distribution's package, unpacked under target/layers and installed nowhere:
# debug builds of wgpu would use them wherever they find them.

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

[ $# -gt 0 ] || set -- ops engine frame models bundled_vision tasks memory lora
folder="$PWD/target/layers"
layer="$folder/usr/lib/$(uname -m)-linux-gnu/libVkLayer_khronos_validation.so"

if [ ! -e "$layer" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    (
        cd "$folder"
        apt-get download -qq vulkan-validationlayers ||
            { apt_install --download-only vulkan-validationlayers && apt-get download -qq vulkan-validationlayers; }
        dpkg-deb -x vulkan-validationlayers_*.deb .
    )
    [ -e "$layer" ] || fail "the package vulkan-validationlayers has no $(basename "$layer") for this machine"
    sed -i "s|\"library_path\": \".*\"|\"library_path\": \"$layer\"|" \
        "$folder"/usr/share/vulkan/explicit_layer.d/*.json
fi

cat >"$folder/vk_layer_settings.txt" <<'SETTINGS'
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn
khronos_validation.log_filename = stdout
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
khronos_validation.enable_message_limit = false
SETTINGS
export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_PATH="$folder/usr/share/vulkan/explicit_layer.d"
export VK_LAYER_SETTINGS_PATH="$folder/vk_layer_settings.txt" NODEVICE_SELECT=1
export REQUIRE_GPU=1 AQUATINT_CACHE="$PWD/target/cache-validation" AQUATINT_BACKEND=vulkan

targets=()
for test in "$@"; do
    targets+=(--test "$test")
done
cargo test --locked --no-run --test validation "${targets[@]}"

log="$folder/control.log"
cargo test --locked --test validation -- --ignored --nocapture >"$log" 2>&1 || { cat "$log" && fail "the control failed"; }
grep -q 'VUID-VkShaderModuleCreateInfo-pCode' "$log" ||
    { cat "$log" && fail "the layers say nothing of a module that is none: they are not heard"; }

# The tests' own verdicts are scripts/test.sh's affair, but a test that stops early asks less of the layers.
log="$folder/messages.log"
status=0
cargo test --locked --no-fail-fast "${targets[@]}" -- --nocapture >"$log" 2>&1 || status=1
grep -E '^test result|FAILED|panicked' "$log" || true
passed="$(sed -n 's/^test result.* \([0-9]*\) passed.*/\1/p' "$log" | paste -sd + | bc)"

grep -E '^(Validation|UNASSIGNED|VUID|SYNC)' "$log" | grep -oE '\[ [^]]+ \]' | tr -d '[] ' | sort >"$folder/names" || true
grep -v '^#' scripts/validation_known.txt | cut -d ' ' -f 1 | sort -u >"$folder/known" || true
grep -vxFf "$folder/known" "$folder/names" >"$folder/unknown" || true
printf '\nmessages by name\n'
uniq -c "$folder/names"
printf 'figure validation: %s tests under %s, %s messages, %s of them not explained\n' "$passed" \
    "$(sed -n 's/.*"api_version": "\(.*\)".*/layers of Vulkan \1/p' "$VK_LAYER_PATH"/*.json)" \
    "$(wc -l <"$folder/names")" "$(wc -l <"$folder/unknown")"
if [ -s "$folder/unknown" ]; then
    grep -F -f <(sort -u "$folder/unknown") "$log" | cut -c 1-1500 | sort | uniq -c | sort -rn | head -n 20
    status=1
fi
exit "$status"
