#!/usr/bin/env bash
# Makes `.libtorch/torch` (PyTorch's own libraries and headers) and `.libtorch/cuda` (CUDA headers) in this checkout.
# Both are links into the user's cache folder, so a second checkout downloads nothing. An existing LIBTORCH of the right version is used as it is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
wanted=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$here/libtorch.txt")

# The version of an unpacked libtorch: a wheel says it in version.py, a zip from pytorch.org in build-version.
version_of() {
    if [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$1/version.py"
    elif [ -f "$1/build-version" ]; then
        sed 's/+.*//' "$1/build-version"
    fi
}

mkdir -p "$root/.libtorch"
torch=
if [ -n "${LIBTORCH:-}" ] && [ "$(readlink -f "$LIBTORCH")" != "$(readlink -f "$root/.libtorch/torch")" ]; then
    found=$(version_of "$LIBTORCH")
    if [ "$found" = "$wanted" ] && [ -e "$LIBTORCH/lib/libtorch_cuda.so" ]; then
        torch=$LIBTORCH
    else
        echo "setup: LIBTORCH=$LIBTORCH is ${found:-not a libtorch} (with CUDA, $wanted is needed): using our own copy" >&2
    fi
fi
[ -n "$torch" ] || torch=$("$here/pytorch.sh")
headers=$("$here/unpack.sh" "$here/cuda-headers.txt")

# A link that already points there keeps its age, so that nothing is built again.
point() { [ "$(readlink "$2" 2>/dev/null)" = "$1" ] || ln -sfnT "$1" "$2"; }
point "$(readlink -f "$torch")" "$root/.libtorch/torch"
point "$headers/nvidia/cu13" "$root/.libtorch/cuda"
