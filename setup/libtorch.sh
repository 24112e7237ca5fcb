#!/usr/bin/env bash
# Makes `.libtorch/torch` (PyTorch's own libraries and headers) and `.libtorch/cuda` (CUDA headers) in this checkout.
# Both are links into the user's cache folder, so a second checkout downloads nothing. An existing LIBTORCH of the right version is used as it is.
# Where there is an NVIDIA driver, NVIDIA's libraries are put where PyTorch's look for them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${LOWMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lowmem}
wanted=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$here/libtorch.txt")

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The version of an unpacked libtorch: a wheel says it in version.py, a zip from pytorch.org in build-version.
version_of() {
    if [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$1/version.py"
    elif [ -f "$1/build-version" ]; then
        sed 's/+.*//' "$1/build-version"
    fi
}

# unpack REQUIREMENTS FOLDER: the wheels of that list, checked against their hashes, unpacked into FOLDER. All or nothing.
unpack() {
    local list=$1 folder=$2 work platforms=()
    [ -d "$folder" ] && return
    command -v python3 >/dev/null || fail "python3 is needed to fetch packages: install it (with pip) and try again"
    python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip: install it (Debian: python3-pip) and try again"
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/unpack.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching $(sed -n 's/^\([a-z0-9-]*==[0-9.]*\).*/\1/p' "$list" | paste -sd' ') (once, into $cache)"
    # pip takes each platform tag literally, and the wheels name nearly all of them.
    for tag in 1 2010 2014 _2_{5,12,17,18,24,25,26,27,28}; do platforms+=(--platform "manylinux${tag}_x86_64"); done
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --python-version 3.11 \
        --implementation cp "${platforms[@]}" --dest "$work/wheels" --requirement "$list" \
        || fail "pip could not fetch what $list names: see its message above"
    for wheel in "$work"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$work/files"; done
    # Another checkout may have been quicker: its copy is the same.
    mv -T "$work/files" "$folder" 2>/dev/null || [ -d "$folder" ] || fail "could not move $work/files to $folder"
    rm -rf "$work"
    trap - EXIT
}

mkdir -p "$root/.libtorch"
torch=
if [ -n "${LIBTORCH:-}" ] && [ "$(readlink -f "$LIBTORCH")" != "$(readlink -f "$root/.libtorch/torch")" ]; then
    found=$(version_of "$LIBTORCH")
    if [ "$found" = "$wanted" ] && [ -e "$LIBTORCH/lib/libtorch_cuda.so" ]; then
        torch=$LIBTORCH
    else
        say "LIBTORCH=$LIBTORCH is ${found:-not a libtorch} (with CUDA, $wanted is needed): using our own copy"
    fi
fi
if [ -z "$torch" ]; then
    unpack "$here/libtorch.txt" "$cache/torch-$wanted"
    torch=$cache/torch-$wanted/torch
fi
versioned() { printf '%s/%s-%s' "$cache" "$1" "$(sha256sum "$here/$1.txt" | cut -c1-12)"; }
headers=$(versioned cuda-headers)
unpack "$here/cuda-headers.txt" "$headers"

# A link that already points there keeps its age, so that nothing is built again.
point() { [ "$(readlink "$2" 2>/dev/null)" = "$1" ] || ln -sfnT "$1" "$2"; }
point "$(readlink -f "$torch")" "$root/.libtorch/torch"
point "$headers/nvidia/cu13" "$root/.libtorch/cuda"

# An unpacked wheel looks for NVIDIA's libraries beside itself. Somebody's own LIBTORCH has its own.
if [ -e /proc/driver/nvidia/version ] && [ "$torch" = "$cache/torch-$wanted/torch" ]; then
    libraries=$(versioned cuda-libraries)
    unpack "$here/cuda-libraries.txt" "$libraries"
    point "$libraries/nvidia" "$cache/torch-$wanted/nvidia"
fi
