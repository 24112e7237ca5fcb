// The kernel. Who compiles it says `ELEMENT`.

#include "gate_and_residual.cuh"

extern "C" __global__ void __launch_bounds__(kernels::LANES* kernels::WARPS) gate_and_residual(const kernels::GateAndResidual given) {
  const kernels::s64 row = static_cast<kernels::s64>(blockIdx.x) * kernels::WARPS + threadIdx.x / kernels::LANES;
  if (row < given.rows.rows) {
    kernels::gate_and_residual<ELEMENT>(given, row);
  }
}
