#!/usr/bin/env bash
# Prints the folder of NVIDIA's run-time compiler, after fetching it into the user's cache folder (once a version): tests compile our kernels with it. It needs no GPU.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
list=$(mktemp)
trap 'rm -f "$list"' EXIT
# The one that PyTorch asks for.
grep '^nvidia-cuda-nvrtc==' "$here/cuda-libraries.txt" >"$list"
folder=$("$here/unpack.sh" "$list" "nvrtc-$(sha256sum "$list" | cut -c1-12)")
echo "$folder/nvidia/cu13/lib"
