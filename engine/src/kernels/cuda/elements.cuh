// The types of numbers that kernels read and write.

#pragma once

#include "warp.cuh"

namespace kernels {

struct Bf16 {
  u16 bits;
};

struct Fp16 {
  u16 bits;
};

KERNEL_FN float to_float(float x) {
  return x;
}

KERNEL_FN float to_float(Bf16 x) {
  return float_of_bits(static_cast<u32>(x.bits) << 16);
}

KERNEL_FN float to_float(Fp16 x) {
  return half_in(x.bits, 0);
}

KERNEL_FN void set(float& to, float x) {
  to = x;
}

KERNEL_FN void set(Fp16& to, float x) {
  to.bits = static_cast<u16>(half_from(x));
}

KERNEL_FN void set(Bf16& to, float x) {
#ifdef __CUDACC_RTC__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
#else
  const u32 bits = bits_of(x);
  to.bits = static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

// Two numbers side by side, which are read and written at once. So are eight.
template <typename Element>
struct alignas(2 * sizeof(Element)) Pair {
  Element values[2];
};

template <typename Element>
struct alignas(16) Eight {
  Element values[8];
};

// Calls `body(lane, place)` for so many pairs, each by one lane of the warp.
template <typename Body>
KERNEL_FN void each_pair(s64 pairs, const Body& body) {
  for (s64 first = 0; first < pairs; first += LANES) {
    EACH_LANE(lane) {
      const s64 place = first + lane;
      if (place < pairs) {
        body(lane, place);
      }
    }
  }
}

} // namespace kernels
