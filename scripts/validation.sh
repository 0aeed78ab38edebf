#!/usr/bin/env bash
# Runs the tests that use a device under Vulkan's validation layers, what they check of calls, of SPIR-V and of
# synchronisation, and fails on any message that is not explained in scripts/validation_known.txt.
#
#   scripts/validation.sh [TEST...]     engine, frame, models, ops and others, if none is named
#
# The driver and the layers are those of scripts/matrices.sh, the newest of Debian: older layers do not know WGSL as the
# language that SPIR-V came from, stop at that and look at nothing else of a kernel. AQUATINT_TEST_SAMPLE=N takes one case in N
# of tests/ops.

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

[ $# -gt 0 ] || set -- engine frame models bundled_vision tasks memory lora ops
scripts/matrices.sh unpack
mesa="$PWD/target/mesa"
folder="$PWD/target/validation"
manifest="$mesa/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json"
mkdir -p "$folder"
sed "s|\"library_path\": \".*\"|\"library_path\": \"$mesa/usr/lib/x86_64-linux-gnu/libVkLayer_khronos_validation.so\"|" \
    "$manifest" >"$folder/VkLayer_khronos_validation.json"

settings() {
    cat >"$folder/vk_layer_settings.txt" <<SETTINGS
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = $1
khronos_validation.log_filename = stdout
khronos_validation.validate_sync = true
khronos_validation.enable_message_limit = false
SETTINGS
}

export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_PATH="$folder"
export VK_LAYER_SETTINGS_PATH="$folder/vk_layer_settings.txt" NODEVICE_SELECT=1
export REQUIRE_GPU=1 AQUATINT_CACHE="$folder/cache" AQUATINT_BACKEND=vulkan
# The new C library is loaded with each test, not with cargo.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/scripts/matrices.sh run"

targets=()
for test in "$@"; do
    targets+=(--test "$test")
done
cargo test --locked --no-run --test validation "${targets[@]}"

# No silence before it is known that the layers speak, and what they look at.
settings error,warn,info
log="$folder/control.log"
cargo test --locked --test validation -- --ignored --nocapture >"$log" 2>&1 || { cat "$log" && fail "the control failed"; }
for heard in 'Missing required OpMemoryModel' '^ *- Synchronization'; do
    grep -q "$heard" "$log" || { cat "$log" && fail "the layers are not heard to say \"$heard\""; }
done

# The layers' own memory counts in where a test looks at that of the process.
settings error,warn
log="$folder/messages.log"
status=0
cargo test --locked --no-fail-fast "${targets[@]}" -- --nocapture --skip ten_thousand_frames >"$log" 2>&1 || status=1
grep -E '^test result|FAILED|panicked' "$log" || true
passed="$(sed -n 's/^test result.* \([0-9]*\) passed.*/\1/p' "$log" | awk '{ sum += $1 } END { print sum + 0 }')"

# Each begins with its kind and its name, maybe behind what a test said.
sed -n 's/.*Validation \(Error\|Warning\|Performance Warning\): \[ \([^ ]*\) \].*/\2/p' "$log" | sort >"$folder/names"
grep -v '^#' scripts/validation_known.txt | cut -d ' ' -f 1 | sort -u >"$folder/known" || true
grep -vxFf "$folder/known" "$folder/names" >"$folder/unknown" || true
uniq -c "$folder/names"
printf 'figure validation: %s tests under the layers of Vulkan %s, %s messages, %s of them not explained\n' "$passed" \
    "$(sed -n 's/.*"api_version": "\(.*\)".*/\1/p' "$manifest")" \
    "$(wc -l <"$folder/names")" "$(wc -l <"$folder/unknown")"
if [ -s "$folder/unknown" ]; then
    grep -F -A 12 -f <(sort -u "$folder/unknown" | sed 's/^/[ /; s/$/ ]/') "$log" | cut -c 1-1500 | head -n 100
    status=1
fi
exit "$status"
