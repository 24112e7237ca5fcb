// The kernel. Who compiles it says `ELEMENT`.

#include "layer_norm.cuh"

extern "C" __global__ void __launch_bounds__(kernels::LANES* kernels::WARPS) layer_norm(const kernels::LayerNorm given) {
  const kernels::s64 row = static_cast<kernels::s64>(blockIdx.x) * kernels::WARPS + threadIdx.x / kernels::LANES;
  if (row < given.rows.rows) {
    kernels::layer_norm<ELEMENT>(given, row);
  }
}
