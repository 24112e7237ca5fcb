// The kernels. Who compiles them says `SAGE_ELEMENT`, `SAGE_HEAD` and `SAGE_VALUES`.

#include "blocks.cuh"

#define SAGE_KERNEL extern "C" __global__ void __launch_bounds__(sage::LANES* sage::WARPS)

static __device__ sage::Place here() {
  return {blockIdx.x, blockIdx.y, blockIdx.z, static_cast<int>(threadIdx.x / sage::LANES)};
}

SAGE_KERNEL sage_keys(const sage::Keys given) {
  sage::keys_of_warp<SAGE_ELEMENT, SAGE_HEAD>(given, here());
}

SAGE_KERNEL sage_values(const sage::ValuesIn given) {
  sage::values_of_warp<SAGE_ELEMENT, SAGE_HEAD, SAGE_VALUES>(given, here());
}

SAGE_KERNEL sage_attention(const sage::Attention given) {
  __shared__ alignas(128) sage::u8 shared[sage::SHARED_BYTES<SAGE_HEAD, SAGE_VALUES>];
  sage::attention_of_warp<SAGE_ELEMENT, SAGE_HEAD, SAGE_VALUES>(given, here(), shared);
}
