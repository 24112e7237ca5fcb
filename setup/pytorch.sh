#!/usr/bin/env bash
# Fetches PyTorch once into the user's cache folder, and prints where it is. Where there is an NVIDIA driver, NVIDIA's libraries are put where PyTorch's look for
# them. `make setup` runs this, and so does `lowmem setup`, which has it in the binary.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wheel=$(bash "$here/unpack.sh" "$here/libtorch.txt" "torch-$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$here/libtorch.txt")")
# An unpacked wheel looks for NVIDIA's libraries beside itself.
if [ -e /proc/driver/nvidia/version ]; then
    libraries=$(bash "$here/unpack.sh" "$here/cuda-libraries.txt")
    [ "$(readlink "$wheel/nvidia" 2>/dev/null)" = "$libraries/nvidia" ] || ln -sfnT "$libraries/nvidia" "$wheel/nvidia"
fi
printf '%s\n' "$wheel/torch"
