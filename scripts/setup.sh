#!/usr/bin/env bash
# Gets this machine ready to build and run aquatint: Rust, a C linker and a
# driver for the GPU (or for the CPU, in its place). Installs what apt-get can
# install and says what to do about the rest. Changes nothing where all is there.
#
#   scripts/setup.sh      run, or source it to have cargo on the PATH afterwards

set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

system() {
    case "$(uname -s)" in
        Darwin) echo macos ;;
        MINGW* | MSYS* | CYGWIN*) echo windows ;;
        *) echo linux ;;
    esac
}

# Installs Debian packages, as root or through sudo.
apt_install() {
    local as_root=env
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || fail "as root, run: apt-get install $*"
        as_root="sudo env"
    fi
    say "installing $*"
    # A broken list of some other vendor must not stop us: the install below tells.
    $as_root apt-get update -qq || say "apt-get update had errors; going on"
    $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# The oldest minor version of Rust 1.x that Cargo.toml allows.
wanted_rust() {
    sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml"
}

check_rust() {
    # Where rustup puts it, for shells that were started before.
    PATH="${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH"
    export PATH
    local install="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    if [ "$(system)" = windows ]; then
        install="winget install Rustlang.Rustup"
    fi
    have cargo || fail "no Rust toolchain found; install it from https://rustup.rs, then run this again:
    $install"
    local minor
    minor="$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')"
    if [ "${minor:-0}" -lt "$(wanted_rust)" ]; then
        fail "Rust 1.$(wanted_rust) or newer is needed, found $(rustc --version); run: rustup update stable"
    fi
}

check_linker() {
    case "$(system)" in
        windows) return ;; # rustup asks for the Visual Studio build tools itself
        macos) xcrun --find cc >/dev/null 2>&1 || fail "no C linker found; run: xcode-select --install" ;;
        linux)
            have cc && return
            have apt-get || fail "no C linker (cc) found; install gcc with its C library headers"
            apt_install gcc libc6-dev
            ;;
    esac
}

# The files by which Vulkan finds its drivers, in the loader's own order.
driver_files() {
    local override="${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}"
    if [ -n "$override" ]; then
        printf '%s\n' "$override" | tr ':' '\n'
        return
    fi
    local folder file
    for folder in "${XDG_CONFIG_HOME:-${HOME:-}/.config}" /usr/local/etc /etc \
        "${XDG_DATA_HOME:-${HOME:-}/.local/share}" /usr/local/share /usr/share \
        /run/opengl-driver/share; do
        for file in "$folder"/vulkan/icd.d/*.json; do
            printf '%s\n' "$file"
        done
    done
}

# Whether Vulkan has its loader and a driver for something that is here: a GPU,
# or the CPU (Mesa's lavapipe, lvp).
has_vulkan() {
    local file gpu loader=yes
    if PATH="$PATH:/sbin:/usr/sbin" command -v ldconfig >/dev/null 2>&1; then
        loader="$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -c 'libvulkan\.so\.1' || true)"
        [ "$loader" != 0 ] || return 1
    fi
    gpu=no
    for file in /dev/dri/renderD* /dev/nvidia0 /dev/dxg /dev/kgsl-3d0 /dev/mali0; do
        if [ -e "$file" ]; then gpu=yes; fi
    done
    while IFS= read -r file; do
        [ -r "$file" ] || continue
        case "$file" in
            *lvp* | *swiftshader*) return 0 ;;
            *) if [ "$gpu" = yes ]; then return 0; fi ;;
        esac
    done < <(driver_files)
    return 1
}

check_driver() {
    # Metal and DirectX 12 come with macOS and Windows.
    [ "$(system)" = linux ] || return 0
    has_vulkan && return
    if have apt-get; then
        apt_install libvulkan1 mesa-vulkan-drivers
        has_vulkan && return
        fail "mesa-vulkan-drivers is installed, yet there is no Vulkan driver for this machine;" \
            "is VK_DRIVER_FILES or VK_ICD_FILENAMES set to something else?"
    fi
    fail "no Vulkan driver found; install your GPU's, or one that computes on the CPU:
    Fedora:   sudo dnf install vulkan-loader mesa-vulkan-drivers
    Arch:     sudo pacman -S vulkan-icd-loader vulkan-swrast
    openSUSE: sudo zypper install libvulkan1 libvulkan_lvp
    Alpine:   sudo apk add vulkan-loader mesa-vulkan-swrast"
}

check_rust
check_linker
check_driver

# Without a session Mesa's chooser of devices looks for a display and complains.
if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    export NODEVICE_SELECT=1
fi
