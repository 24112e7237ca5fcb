#!/usr/bin/env bash
# Prints the folder of NVIDIA's run-time compiler, after fetching it into the user's cache folder (once a version): tests compile our kernels with it. It needs no GPU.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${LOWMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lowmem}
list=$(mktemp)
trap 'rm -f "$list"' EXIT
# The one that PyTorch asks for.
grep '^nvidia-cuda-nvrtc==' "$here/cuda-libraries.txt" >"$list"
folder=$cache/nvrtc-$(sha256sum "$list" | cut -c1-12)
"$here/unpack.sh" "$list" "$folder"
echo "$folder/nvidia/cu13/lib"
