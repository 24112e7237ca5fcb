// The kernel. Who compiles it says `SAGE_ELEMENT`.

#include "norm_and_turn.cuh"

extern "C" __global__ void __launch_bounds__(sage::LANES* sage::WARPS) norm_and_turn(const sage::NormAndTurn given) {
  const sage::s64 row = static_cast<sage::s64>(blockIdx.x) * sage::WARPS + threadIdx.x / sage::LANES;
  if (row < given.rows) {
    sage::norm_and_turn<SAGE_ELEMENT>(given, row);
  }
}
