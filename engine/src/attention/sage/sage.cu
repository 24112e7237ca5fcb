// The kernels. Who compiles them says `ELEMENT` and `SAGE_HEAD`.

#include "blocks.cuh"

#define SAGE_KERNEL extern "C" __global__ void __launch_bounds__(kernels::LANES* kernels::WARPS)

static __device__ sage::Place here() {
  return {blockIdx.x, blockIdx.y, blockIdx.z, static_cast<int>(threadIdx.x / kernels::LANES)};
}

SAGE_KERNEL sage_keys(const sage::Keys given) {
  sage::keys_of_warp<ELEMENT, SAGE_HEAD>(given, here());
}

SAGE_KERNEL sage_values(const sage::Values given) {
  sage::values_of_warp<ELEMENT, SAGE_HEAD>(given, here());
}

SAGE_KERNEL sage_attention(const sage::Attention given) {
  __shared__ alignas(128) kernels::u8 shared[sage::SHARED_BYTES<SAGE_HEAD>];
  sage::attention_of_warp<ELEMENT, SAGE_HEAD, sage::AllTiles>(given, here(), shared);
}

SAGE_KERNEL sparge_means(const sage::Means given) {
  sage::means_of_warp<ELEMENT, SAGE_HEAD>(given, here());
}

SAGE_KERNEL sparge_choice(const sage::Choice given) {
  __shared__ float shared[kernels::WARPS * SAGE_HEAD];
  sage::choice_of_warp<ELEMENT, SAGE_HEAD>(given, here(), shared);
}

SAGE_KERNEL sparge_attention(const sage::Attention given) {
  __shared__ alignas(128) kernels::u8 shared[sage::SHARED_BYTES<SAGE_HEAD>];
  sage::attention_of_warp<ELEMENT, SAGE_HEAD, sage::ChosenTiles>(given, here(), shared);
}
