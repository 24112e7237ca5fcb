// Where queries, keys and values lie, and how they are rounded to int8.

#pragma once

#include "elements.cuh"

namespace sage {

using namespace kernels;

// A tensor `[batch, heads, tokens, channels]` whose channels are dense. Every field has 8 bytes, here as in Rust (`engine/src/kernels/sage.rs`). Channels begin at multiples of 16 bytes.
struct View {
  void* data;
  s64 batch_stride;
  s64 head_stride;
  s64 token_stride;

  template <typename Element>
  KERNEL_FN Element* row(s64 batch, s64 head, s64 token) const {
    return static_cast<Element*>(data) + batch * batch_stride + head * head_stride + token * token_stride;
  }
};

// Eight channels of a token from `channel` on, as floats; zeros where the tensor has no such token or channel.
template <typename Element>
KERNEL_FN void read_eight(float (&to)[8], const View& tensor, s64 batch, s64 head, s64 token, s64 tokens, s64 channel, s64 channels) {
  const bool is_there = token < tokens && channel < channels;
  Eight<Element> eight{};
  if (is_there) {
    eight = *reinterpret_cast<const Eight<Element>*>(tensor.row<Element>(batch, head, token) + channel);
  }
#pragma unroll
  for (int index = 0; index < 8; ++index) {
    to[index] = to_float(eight.values[index]);
  }
}

// Eight floats over `scale`, rounded to int8, the first in the lowest byte.
KERNEL_FN void pack_int8(u32 (&to)[2], const float (&from)[8], float scale) {
  const float inverse = 1 / scale;
#pragma unroll
  for (int word = 0; word < 2; ++word) {
    to[word] = 0;
#pragma unroll
    for (int byte = 0; byte < 4; ++byte) {
      to[word] |= rounded_to_int8(from[4 * word + byte] * inverse) << 8 * byte;
    }
  }
}

// What a group of numbers up to `largest` is divided by to fit into int8: as SageAttention has it (triton/quant_per_block.py), where the last term keeps a group of zeros
// from being divided by zero.
KERNEL_FN float int8_scale(float largest) {
  return largest / 127 + 1e-7f;
}

struct alignas(8) EightBytes {
  u32 words[2];
};

} // namespace sage
