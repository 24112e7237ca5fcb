// What a warp does, written once: for the GPU, and for the CPU, where the kernels are tested.
//
// On the GPU a lane of a warp is a thread, and what a lane holds is in its registers. On the CPU one call does what all 32 lanes do, one lane after the other: a
// `PerLane` has their values side by side. What the lanes do together (products on the tensor cores, loads of matrices, maxima over lanes) are the functions here that
// have a body for each. All else is written between `EACH_LANE` and is the same text for both. The layouts of fragments are those of NVIDIA's PTX ISA, "Matrix
// fragments for mma.m16n8k16 / m16n8k32" and "ldmatrix": in bytes they are the same for 8 and for 16 bits, 16 rows by 32 bytes for A and 8 columns by 32 bytes for B.

#pragma once

#ifdef __CUDACC_RTC__
#define KERNEL_FN __device__ __forceinline__
#else
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>
#define KERNEL_FN inline
#endif

namespace kernels {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using s8 = signed char;
using s64 = long long;

constexpr int LANES = 32;
constexpr int WARPS = 4;

#ifdef __CUDACC_RTC__
constexpr int HELD = 1;
#define EACH_LANE(lane) if (const int lane = threadIdx.x % kernels::LANES; true)
// Each `index` below `count` is one thread's of the block.
#define EACH_OF_BLOCK(index, count) for (int index = threadIdx.x; index < (count); index += kernels::LANES * kernels::WARPS)
#else
constexpr int HELD = LANES;
#define EACH_LANE(lane) for (int lane = 0; lane < kernels::LANES; ++lane)
// Warps run one after the other, so each finds in shared memory what it loads itself.
#define EACH_OF_BLOCK(index, count) for (int index = 0; index < (count); ++index)
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

// To the nearest whole number, halves away from zero, as int8. `x` is within 127.5 of zero.
KERNEL_FN u32 rounded_to_int8(float x) {
  return static_cast<u32>(static_cast<int>(x + (x >= 0 ? 0.5f : -0.5f))) & 0xff;
}

#ifndef __CUDACC_RTC__
// A number of so many mantissa bits, with exponents from `LEAST` up and one more bit for the sign, rounded to even; what is larger than `largest` becomes that. It is not NaN.
template <int MANTISSA, int LEAST>
u32 small_from(float x, float largest) {
  const u32 sign = std::signbit(x) ? 1u : 0u;
  const float size = std::min(std::fabs(x), largest);
  const int exponent = size == 0 ? LEAST : std::max(std::ilogb(size), LEAST);
  // In units of the last place; what rounds up to the next power of two carries into the exponent by itself.
  const u32 units = static_cast<u32>(std::nearbyint(std::ldexp(size, MANTISSA - exponent)));
  const u32 bits = (static_cast<u32>(exponent - LEAST) << MANTISSA) + units;
  constexpr int WIDTH = MANTISSA == 3 ? 8 : 16;
  return sign << (WIDTH - 1) | bits;
}

template <int MANTISSA, int LEAST>
float small_to_float(u32 bits) {
  constexpr int WIDTH = MANTISSA == 3 ? 8 : 16;
  const u32 size = bits & ((1u << (WIDTH - 1)) - 1);
  const u32 exponent = size >> MANTISSA;
  const u32 mantissa = size & ((1u << MANTISSA) - 1);
  const u32 units = exponent == 0 ? mantissa : mantissa | 1u << MANTISSA;
  const float value = std::ldexp(static_cast<float>(units), LEAST - MANTISSA + static_cast<int>(exponent == 0 ? 0 : exponent - 1));
  return bits >> (WIDTH - 1) & 1 ? -value : value;
}

// Every number of such a type, by its bits: a product decodes thousands.
template <int MANTISSA, int LEAST, int WIDTH>
const float* all_floats() {
  static const auto table = [] {
    std::vector<float> floats(1u << WIDTH);
    for (u32 bits = 0; bits < floats.size(); ++bits) {
      floats[bits] = small_to_float<MANTISSA, LEAST>(bits);
    }
    return floats;
  }();
  return table.data();
}

inline float half_to_float(u32 bits) {
  return all_floats<10, -14, 16>()[bits & 0xffff];
}

inline float e4m3_to_float(u32 bits) {
  return all_floats<3, -6, 8>()[bits & 0xff];
}
#endif

// The largest number of fp16, and of FP8 e4m3.
constexpr float LARGEST_HALF = 65504;
constexpr float LARGEST_E4M3 = 448;

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
  return small_from<10, -14>(x, 65536);
#endif
}

// The same, but what is too large becomes the largest number.
KERNEL_FN u32 bounded_half_from(float x) {
  return half_from(x > LARGEST_HALF ? LARGEST_HALF : x < -LARGEST_HALF ? -LARGEST_HALF : x);
}

// Two numbers as fp16, the first in the lower bits. They are small enough.
KERNEL_FN u32 halves_from(float first, float second) {
#ifdef __CUDACC_RTC__
  u32 bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
#else
  return half_from(first) | half_from(second) << 16;
#endif
}

// Two numbers as FP8 e4m3, the first in the lower bits; what is too large becomes its largest number.
KERNEL_FN u32 e4m3s_from(float first, float second) {
#ifdef __CUDACC_RTC__
  u16 bits;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(bits) : "f"(second), "f"(first));
  return bits;
#else
  return small_from<3, -6>(first, LARGEST_E4M3) | small_from<3, -6>(second, LARGEST_E4M3) << 8;
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
KERNEL_FN void largest_of_warp(PerLane<float, 1>& values) {
#ifdef __CUDACC_RTC__
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    values(0) = larger(values(0), __shfl_xor_sync(0xffffffff, values(0), distance));
  }
#else
  float largest = values(0);
  EACH_LANE(lane) {
    largest = larger(largest, values(lane));
  }
  fill(values, largest);
#endif
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
  std::memcpy(shared, from, 16);
#endif
}

// Closes a group of such copies.
KERNEL_FN void close_copies() {
#ifdef __CUDACC_RTC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all groups but the newest `PENDING` have arrived, and all warps are here.
template <int PENDING>
KERNEL_FN void arrived() {
#ifdef __CUDACC_RTC__
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
  __syncthreads();
#endif
}

// All lanes of the warp are here, and see what others wrote.
KERNEL_FN void warp_here() {
#ifdef __CUDACC_RTC__
  __syncwarp();
#endif
}

// All warps of the block are here.
KERNEL_FN void all_here() {
#ifdef __CUDACC_RTC__
  __syncthreads();
#endif
}

#ifndef __CUDACC_RTC__
// sum += A B, of which each product is made of two numbers by `times(row, column)`. Lane 4 g + t has of the sum rows g and g + 8, columns 2 t and 2 t + 1.
template <typename Sum, typename Times>
void add_products(PerLane<Sum, 4>& sum, const Times& times) {
  EACH_LANE(lane) {
    for (int index = 0; index < 4; ++index) {
      sum(lane, index) += times(lane / 4 + 8 * (index / 2), 2 * (lane % 4) + index % 2);
    }
  }
}

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

// A product of floats that were decoded once.
template <int COUNT, typename Decode>
auto float_products(const Gathered& bytes, const Decode& decode) {
  struct Floats {
    float a[16][COUNT], b[8][COUNT];
    float operator()(int row, int column) const {
      float sum = 0;
      for (int k = 0; k < COUNT; ++k) {
        sum += a[row][k] * b[column][k];
      }
      return sum;
    }
  } floats;
  for (int k = 0; k < COUNT; ++k) {
    for (int row = 0; row < 16; ++row) {
      floats.a[row][k] = decode(bytes.a[row], k);
    }
    for (int column = 0; column < 8; ++column) {
      floats.b[column][k] = decode(bytes.b[column], k);
    }
  }
  return floats;
}

inline float half_at(const u8* bytes, int k) {
  return half_to_float(static_cast<u32>(bytes[2 * k] | bytes[2 * k + 1] << 8));
}

inline float e4m3_at(const u8* bytes, int k) {
  return e4m3_to_float(bytes[k]);
}
#endif

// sum += A B in int8: 16 x 32 by 32 x 8. Of `b` the registers from `first` on.
KERNEL_FN void multiply_int8(PerLane<int, 4>& sum, const PerLane<u32, 4>& a, const PerLane<u32, 4>& b, int first) {
#ifdef __CUDACC_RTC__
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(sum(0, 0)), "+r"(sum(0, 1)), "+r"(sum(0, 2)), "+r"(sum(0, 3))
               : "r"(a(0, 0)), "r"(a(0, 1)), "r"(a(0, 2)), "r"(a(0, 3)), "r"(b(0, first)), "r"(b(0, first + 1)));
#else
  const Gathered bytes(a, b, first);
  add_products(sum, [&](int row, int column) {
    int product = 0;
    for (int k = 0; k < 32; ++k) {
      product += static_cast<s8>(bytes.a[row][k]) * static_cast<s8>(bytes.b[column][k]);
    }
    return product;
  });
#endif
}

// sum += A B in fp16, summed in fp32: 16 x 16 by 16 x 8.
KERNEL_FN void multiply_half(PerLane<float, 4>& sum, const PerLane<u32, 4>& a, const PerLane<u32, 4>& b, int first) {
#ifdef __CUDACC_RTC__
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sum(0, 0)), "+f"(sum(0, 1)), "+f"(sum(0, 2)), "+f"(sum(0, 3))
               : "r"(a(0, 0)), "r"(a(0, 1)), "r"(a(0, 2)), "r"(a(0, 3)), "r"(b(0, first)), "r"(b(0, first + 1)));
#else
  add_products(sum, float_products<16>(Gathered(a, b, first), half_at));
#endif
}

// sum += A B in FP8 e4m3, summed in fp32: 16 x 32 by 32 x 8.
KERNEL_FN void multiply_e4m3(PerLane<float, 4>& sum, const PerLane<u32, 4>& a, const PerLane<u32, 4>& b, int first) {
#ifdef __CUDACC_RTC__
  asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sum(0, 0)), "+f"(sum(0, 1)), "+f"(sum(0, 2)), "+f"(sum(0, 3))
               : "r"(a(0, 0)), "r"(a(0, 1)), "r"(a(0, 2)), "r"(a(0, 3)), "r"(b(0, first)), "r"(b(0, first + 1)));
#else
  add_products(sum, float_products<32>(Gathered(a, b, first), e4m3_at));
#endif
}

// The same, summed in fp16: a register has the two columns of a row.
KERNEL_FN void multiply_e4m3_in_half(PerLane<u32, 2>& sum, const PerLane<u32, 4>& a, const PerLane<u32, 4>& b, int first) {
#ifdef __CUDACC_RTC__
  asm volatile("mma.sync.aligned.m16n8k32.row.col.f16.e4m3.e4m3.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
               : "+r"(sum(0, 0)), "+r"(sum(0, 1))
               : "r"(a(0, 0)), "r"(a(0, 1)), "r"(a(0, 2)), "r"(a(0, 3)), "r"(b(0, first)), "r"(b(0, first + 1)));
#else
  PerLane<float, 4> floats;
  EACH_LANE(lane) {
    for (int index = 0; index < 4; ++index) {
      floats(lane, index) = half_to_float(sum(lane, index / 2) >> 16 * (index % 2) & 0xffff);
    }
  }
  add_products(floats, float_products<32>(Gathered(a, b, first), e4m3_at));
  EACH_LANE(lane) {
    for (int row = 0; row < 2; ++row) {
      sum(lane, row) = halves_from(floats(lane, 2 * row), floats(lane, 2 * row + 1));
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
