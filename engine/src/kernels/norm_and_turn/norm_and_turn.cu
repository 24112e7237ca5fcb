// The kernel. Who compiles it says `ELEMENT`.

#include "norm_and_turn.cuh"

extern "C" __global__ void __launch_bounds__(kernels::LANES* kernels::WARPS) norm_and_turn(const kernels::NormAndTurn given) {
  const kernels::s64 row = static_cast<kernels::s64>(blockIdx.x) * kernels::WARPS + threadIdx.x / kernels::LANES;
  if (row < given.rows) {
    kernels::norm_and_turn<ELEMENT>(given, row);
  }
}
