#!/usr/bin/env bash
# Times our transformer and VAE beside diffusers' on the CPU, with one libtorch, and writes beside_diffusers.md: `make bench`.
# Options are those of beside_diffusers.py, `--help` lists them. The packages are those of `make reference`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
packages=$("$root/setup/python-packages.sh")
torch=$(dirname "$(readlink -f "$root/.libtorch/torch")")
cd "$root"
ours=$(cargo bench --quiet --package engine --bench beside_diffusers --no-run --message-format=json \
    | sed -n 's/.*"name":"beside_diffusers".*"executable":"\([^"]*\)".*/\1/p')
work=$root/target/beside_diffusers
trap 'rm -rf "$work"' EXIT
env -u LOWMEM_VIRTUAL_GPU HF_HUB_OFFLINE=1 LD_LIBRARY_PATH="$root/target/release/virtual-gpu" PYTHONPATH="$packages:$torch" \
    PYTHONDONTWRITEBYTECODE=1 python3.11 "$here/beside_diffusers.py" --ours "$ours" --work "$work" "$@"
