// What a warp does, written once: for the GPU, and for the CPU, where the kernels are tested.
//
// On the GPU a lane of a warp is a thread, and what a lane holds is in its registers. On the CPU one call does what all 32 lanes do, one lane after the other: a
// `PerLane` has their values side by side. What the lanes do together (products on the tensor cores, loads of matrices, maxima over lanes) are the functions here that
// have a body for each. All else is written between `EACH_LANE` and is the same text for both. The layouts of fragments are those of NVIDIA's PTX ISA, "Matrix
// fragments for mma.m16n8k32" and "ldmatrix": 16 rows by 32 bytes for A and 8 columns by 32 bytes for B.

#pragma once

namespace kernels {

constexpr int LANES = 32;
constexpr int WARPS = 4;

} // namespace kernels

#ifdef __CUDACC_RTC__
#define KERNEL_FN __device__ __forceinline__
#else
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>
#include "turns.h"
#define KERNEL_FN inline
#endif

namespace kernels {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using s8 = signed char;
using s64 = long long;

#ifdef __CUDACC_RTC__
constexpr int HELD = 1;
#define EACH_LANE(lane) if (const int lane = threadIdx.x % kernels::LANES; true)
// Each `index` below `count` is one thread's of the block.
#define EACH_OF_BLOCK(index, count) for (int index = threadIdx.x; index < (count); index += kernels::LANES * kernels::WARPS)
#else
constexpr int HELD = LANES;
#define EACH_LANE(lane) for (int lane = 0; lane < kernels::LANES; ++lane)
#define EACH_OF_BLOCK(index, count) for (int index = kernels::first_of_block(); index < (count); index = kernels::next_of_block(index))
#endif

// So many values of each lane.
template <typename T, int COUNT>
struct PerLane {
  T values[HELD][COUNT];

  KERNEL_FN T& operator()(int lane, int index = 0) {
    return values[lane % HELD][index];
  }
  KERNEL_FN const T& operator()(int lane, int index = 0) const {
    return values[lane % HELD][index];
  }
};

template <typename T, int COUNT>
KERNEL_FN void fill(PerLane<T, COUNT>& values, T value) {
  EACH_LANE(lane) {
#pragma unroll
    for (int index = 0; index < COUNT; ++index) {
      values(lane, index) = value;
    }
  }
}

KERNEL_FN float larger(float a, float b) {
  return a > b ? a : b;
}

KERNEL_FN float absolute(float x) {
  return x < 0 ? -x : x;
}

KERNEL_FN float square_root(float x) {
#ifdef __CUDACC_RTC__
  return __fsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}

KERNEL_FN u32 bits_of(float x) {
#ifdef __CUDACC_RTC__
  return __float_as_uint(x);
#else
  u32 bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

KERNEL_FN float float_of_bits(u32 bits) {
#ifdef __CUDACC_RTC__
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

// To the nearest whole number, halves away from zero, as int8. `x` is within 127.5 of zero.
KERNEL_FN u32 rounded_to_int8(float x) {
  return static_cast<u32>(static_cast<int>(x + (x >= 0 ? 0.5f : -0.5f))) & 0xff;
}

#ifndef __CUDACC_RTC__
// What is larger than `largest` becomes that. Rounded to even; it is not NaN.
inline u32 half_bits(float x, float largest) {
  constexpr int MANTISSA = 10, LEAST = -14;
  const u32 sign = std::signbit(x) ? 1u : 0u;
  const float size = std::min(std::fabs(x), largest);
  const int exponent = size == 0 ? LEAST : std::max(std::ilogb(size), LEAST);
  // In units of the last place; what rounds up to the next power of two carries into the exponent by itself.
  const u32 units = static_cast<u32>(std::nearbyint(std::ldexp(size, MANTISSA - exponent)));
  return sign << 15 | ((static_cast<u32>(exponent - LEAST) << MANTISSA) + units);
}

inline float half_of_bits(u32 bits) {
  constexpr int MANTISSA = 10, LEAST = -14;
  const u32 exponent = bits >> MANTISSA & 31;
  const u32 mantissa = bits & ((1u << MANTISSA) - 1);
  const u32 units = exponent == 0 ? mantissa : mantissa | 1u << MANTISSA;
  const float value = std::ldexp(static_cast<float>(units), LEAST - MANTISSA + static_cast<int>(exponent == 0 ? 0 : exponent - 1));
  return bits >> 15 & 1 ? -value : value;
}

// By a table of all: unpacking reads millions.
inline float half_to_float(u32 bits) {
  static const auto table = [] {
    std::vector<float> floats(1u << 16);
    for (u32 half = 0; half < floats.size(); ++half) {
      floats[half] = half_of_bits(half);
    }
    return floats;
  }();
  return table[bits & 0xffff];
}
#endif

// As fp16, as libtorch rounds: what is too large for it is infinite.
KERNEL_FN u32 half_from(float x) {
#ifdef __CUDACC_RTC__
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  if (std::isnan(x)) {
    return 0x7fff;
  }
  // What would come after the largest number has the bits of infinity.
  return half_bits(x, 65536);
#endif
}

KERNEL_FN float power_of_two(float x) {
#ifdef __CUDACC_RTC__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return std::exp2(x);
#endif
}

// The largest of the values of all lanes, for each of them.
template <int COUNT>
KERNEL_FN void largest_of_warp(PerLane<float, COUNT>& values) {
#pragma unroll
  for (int index = 0; index < COUNT; ++index) {
#ifdef __CUDACC_RTC__
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      values(0, index) = larger(values(0, index), __shfl_xor_sync(0xffffffff, values(0, index), distance));
    }
#else
    float largest = values(0, index);
    EACH_LANE(lane) {
      largest = larger(largest, values(lane, index));
    }
    EACH_LANE(lane) {
      values(lane, index) = largest;
    }
#endif
  }
}

// Of lanes whose numbers differ in the bits from `FROM` up to `TO` alone, both powers of two, the sum of their values, for each of them.
template <int FROM, int TO, int COUNT>
KERNEL_FN void sum_over_lanes(PerLane<float, COUNT>& values) {
#pragma unroll
  for (int distance = FROM; distance < TO; distance *= 2) {
#ifdef __CUDACC_RTC__
#pragma unroll
    for (int index = 0; index < COUNT; ++index) {
      values(0, index) += __shfl_xor_sync(0xffffffff, values(0, index), distance);
    }
#else
    const PerLane<float, COUNT> before = values;
    EACH_LANE(lane) {
      for (int index = 0; index < COUNT; ++index) {
        values(lane, index) += before(lane ^ distance, index);
      }
    }
#endif
  }
}

// The lanes whose value is not 0, a bit each, for each of them.
KERNEL_FN u32 lanes_where(const PerLane<int, 1>& values) {
#ifdef __CUDACC_RTC__
  return __ballot_sync(0xffffffff, values(0));
#else
  u32 lanes = 0;
  EACH_LANE(lane) {
    lanes |= (values(lane) != 0 ? 1u : 0u) << lane;
  }
  return lanes;
#endif
}

// How many of these lanes come before `lane`.
KERNEL_FN int lanes_before(u32 lanes, int lane) {
  const u32 before = lane < LANES ? lanes & ((1u << lane) - 1) : lanes;
#ifdef __CUDACC_RTC__
  return __popc(before);
#else
  return __builtin_popcount(before);
#endif
}

// Four lanes side by side have the columns of one row of a fragment. The largest of theirs, or their sum, for each of them.
template <bool IS_SUM>
KERNEL_FN void over_row(PerLane<float, 4>& values, int index) {
#ifdef __CUDACC_RTC__
#pragma unroll
  for (int distance = 1; distance < 4; distance *= 2) {
    const float other = __shfl_xor_sync(0xffffffff, values(0, index), distance);
    values(0, index) = IS_SUM ? values(0, index) + other : larger(values(0, index), other);
  }
#else
  for (int row = 0; row < LANES; row += 4) {
    float result = values(row, index);
    for (int lane = row + 1; lane < row + 4; ++lane) {
      result = IS_SUM ? result + values(lane, index) : larger(result, values(lane, index));
    }
    for (int lane = row; lane < row + 4; ++lane) {
      values(lane, index) = result;
    }
  }
#endif
}

// Four matrices of 8 rows of 16 bytes each, from shared memory. Lane 8 m + r says where row r of matrix m begins. Lane 4 r + w gets word w of row r of each.
KERNEL_FN void load_matrices(PerLane<u32, 4>& to, const u8* shared, const PerLane<int, 1>& rows) {
#ifdef __CUDACC_RTC__
  const u32 address = static_cast<u32>(__cvta_generic_to_shared(shared + rows(0)));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to(0, 0)), "=r"(to(0, 1)), "=r"(to(0, 2)), "=r"(to(0, 3))
               : "r"(address)
               : "memory");
#else
  EACH_LANE(lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      std::memcpy(&to(lane, matrix), shared + rows(8 * matrix + lane / 4) + 4 * (lane % 4), sizeof(u32));
    }
  }
#endif
}

// Copies 16 bytes to shared memory without waiting for them.
KERNEL_FN void copy_ahead(u8* shared, const u8* from) {
#ifdef __CUDACC_RTC__
  const u32 address = static_cast<u32>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
#else
  if (this_warp == nullptr) {
    std::memcpy(shared, from, 16);
  } else {
    this_warp->copy(shared, from);
  }
#endif
}

// Closes a group of such copies.
KERNEL_FN void close_copies() {
#ifdef __CUDACC_RTC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  if (this_warp != nullptr) {
    this_warp->close_copies();
  }
#endif
}

// All warps of the block are here.
KERNEL_FN void all_here() {
#ifdef __CUDACC_RTC__
  __syncthreads();
#else
  if (this_warp != nullptr) {
    this_warp->meet();
  }
#endif
}

// Waits until all groups but the newest `PENDING` have arrived, and all warps are here.
template <int PENDING>
KERNEL_FN void arrived() {
#ifdef __CUDACC_RTC__
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#else
  if (this_warp != nullptr) {
    this_warp->wait_for_copies(PENDING);
  }
#endif
  all_here();
}

// All lanes of the warp are here, and see what others wrote.
KERNEL_FN void warp_here() {
#ifdef __CUDACC_RTC__
  __syncwarp();
#endif
}

#ifndef __CUDACC_RTC__
// The bytes of A, 16 rows of 32, and of B, 8 columns of 32, that lanes have in registers.
struct Gathered {
  u8 a[16][32];
  u8 b[8][32];

  Gathered(const PerLane<u32, 4>& from_a, const PerLane<u32, 4>& from_b, int first_b) {
    EACH_LANE(lane) {
      for (int part = 0; part < 4; ++part) {
        std::memcpy(&a[lane / 4 + 8 * (part % 2)][16 * (part / 2) + 4 * (lane % 4)], &from_a(lane, part), 4);
      }
      for (int part = 0; part < 2; ++part) {
        std::memcpy(&b[lane / 4][16 * part + 4 * (lane % 4)], &from_b(lane, first_b + part), 4);
      }
    }
  }
};
#endif

// Sums of whole numbers begin here: what is added stays in the mantissa of a float, whose bits they are, so that no conversion is needed, of which a multiprocessor makes 16 a clock.
// They hold what lies within two to the power of 22 of zero.
constexpr int WHOLE_ZERO = 0x4b400000;

// What such a sum comes to, of the float.
KERNEL_FN float from_whole_zero(float sum) {
  return sum - 12582912.0f;
}

// The bits of a float whose lowest byte is `x` as a whole number, halves to even. It is from 0 to 255.
KERNEL_FN u32 whole_byte(float x) {
  return bits_of(x + 8388608.0f);
}

// The lowest bytes of four words, the first lowest.
KERNEL_FN u32 lowest_bytes(u32 first, u32 second, u32 third, u32 fourth) {
#ifdef __CUDACC_RTC__
  return __byte_perm(__byte_perm(first, second, 0x0040), __byte_perm(third, fourth, 0x0040), 0x5410);
#else
  return (first & 0xff) | (second & 0xff) << 8 | (third & 0xff) << 16 | (fourth & 0xff) << 24;
#endif
}

// `sum` and the four bytes of a word, which are not negative.
KERNEL_FN u32 plus_bytes(u32 sum, u32 word) {
#ifdef __CUDACC_RTC__
  return __dp4a(word, 0x01010101u, sum);
#else
  return sum + (word & 0xff) + (word >> 8 & 0xff) + (word >> 16 & 0xff) + (word >> 24);
#endif
}

// sum += A B in whole numbers of 8 bits, those of A of type `First`, those of B with a sign: 16 x 32 by 32 x 8. Of `b` the registers from `first` on.
template <typename First>
KERNEL_FN void multiply_bytes(PerLane<int, 4>& sum, const PerLane<u32, 4>& a, const PerLane<u32, 4>& b, int first) {
#ifdef __CUDACC_RTC__
#define LOWMEM_MULTIPLY(type)                                                                                                                       \
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." type ".s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"               \
               : "+r"(sum(0, 0)), "+r"(sum(0, 1)), "+r"(sum(0, 2)), "+r"(sum(0, 3))                                                                  \
               : "r"(a(0, 0)), "r"(a(0, 1)), "r"(a(0, 2)), "r"(a(0, 3)), "r"(b(0, first)), "r"(b(0, first + 1)))
  if constexpr (static_cast<First>(-1) < static_cast<First>(0)) {
    LOWMEM_MULTIPLY("s8");
  } else {
    LOWMEM_MULTIPLY("u8");
  }
#undef LOWMEM_MULTIPLY
#else
  const Gathered bytes(a, b, first);
  // Lane 4 g + t has of the sum rows g and g + 8, columns 2 t and 2 t + 1.
  EACH_LANE(lane) {
    for (int index = 0; index < 4; ++index) {
      const u8* const row = bytes.a[lane / 4 + 8 * (index / 2)];
      const u8* const column = bytes.b[2 * (lane % 4) + index % 2];
      for (int k = 0; k < 32; ++k) {
        sum(lane, index) += static_cast<First>(row[k]) * static_cast<s8>(column[k]);
      }
    }
  }
#endif
}

// The two numbers of a register of fp16.
KERNEL_FN float half_in(u32 bits, int which) {
  const u32 half = which == 0 ? bits & 0xffff : bits >> 16;
#ifdef __CUDACC_RTC__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<u16>(half)));
  return value;
#else
  return half_to_float(half);
#endif
}

} // namespace kernels
