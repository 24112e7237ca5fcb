// The kernel. Who compiles it says `ELEMENT`.

#include "unpack.cuh"

extern "C" __global__ void __launch_bounds__(kernels::LANES* kernels::WARPS) unpack(const kernels::Unpack given) {
  const kernels::s64 place = static_cast<kernels::s64>(blockIdx.x) * (kernels::LANES * kernels::WARPS) + threadIdx.x;
  if (place * kernels::UNPACKED_AT_ONCE < given.numbers) {
    kernels::unpack<ELEMENT>(given, place);
  }
}
