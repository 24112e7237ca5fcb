#!/usr/bin/env bash
# Tests what fits on the real GPU at hand, and writes reports/measured/CARD-DATE. Without cargo it runs what was built elsewhere for a checkout at this path:
# target/release/{lowmem,lowmem-worker,libvirtual_gpu.so,virtual-gpu} and target/release/deps/{gpu,parity,attention}-*, with PyTorch behind .libtorch/torch.
set -euo pipefail
cd "$(dirname "$0")/.."
setup/need-gpu.sh
if command -v cargo >/dev/null; then
    setup/libtorch.sh
    cargo build --release --workspace --quiet
    cargo test --release --workspace --quiet --no-run --test gpu --test parity
    cargo bench --workspace --quiet --no-run --bench attention
fi
# The newest program that was built of that name.
built() {
    find target/release/deps -name "$1-*" -executable -type f -printf '%T@ %p\n' 2>/dev/null | sort -rn | head -n 1 | cut -d' ' -f2
}
tests=$(built gpu)
if [ -z "$tests" ]; then
    echo "there is no cargo here, and no target/release/deps/gpu-* that was built elsewhere: install Rust, or bring a build" >&2
    exit 1
fi
# The real CUDA libraries, which PyTorch's find beside them and a program of ours does not.
torch=$(readlink -f .libtorch/torch)
export LD_LIBRARY_PATH=$torch/lib:$torch/../nvidia/cu13/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
SECONDS=0
LOWMEM_TEST_DEVICE=cuda "$tests" --exact every_check_passes --nocapture
# Attention by each kernel that the card has, as far as that goes in what is left of a quarter of an hour. A time fails nothing.
attention=$(built attention)
left=$((900 - SECONDS))
if [ -n "$attention" ] && [ "$left" -gt 30 ]; then
    echo
    timeout "$left" "$attention" --bench --warm-up-time 1 --measurement-time 2 || echo "attention: not all kernels were timed"
fi
