// Weights that wait packed, made the type of arithmetic again: numbers of 8 bits with a scale for each row, and the blocks of GGUF files (`engine/src/weights/blocks`). Each byte is read from memory once, and each number written
// once. All is in fp32, product and sum each rounded by itself as libtorch's operations round them, and the result rounded once: the bits are theirs.
//
// Layouts of blocks from ggml's `ggml-common.h` and `gguf-py/gguf/quants.py`.

#pragma once

#include "elements.cuh"

namespace kernels {

// Types of packed numbers, by their numbers in `engine/src/kernels/unpack.rs`.
enum class PackedType : s64 { E4M3, E5M2, INT8, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS };

struct Unpack {
  const u8* packed;
  // One a row, for numbers of 8 bits.
  const float* scales;
  void* target;
  s64 numbers;
  // Numbers of a row.
  s64 row;
  PackedType type;
};

// Numbers that a lane makes.
constexpr int UNPACKED_AT_ONCE = 8;

// Product, sum and difference that no compiler joins into one operation.
KERNEL_FN float times(float a, float b) {
#ifdef __CUDACC_RTC__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

KERNEL_FN float plus(float a, float b) {
#ifdef __CUDACC_RTC__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

// The number in 16 bits at these bytes.
KERNEL_FN float half_of(const u8* bytes) {
  return half_in(static_cast<u32>(bytes[0]) | static_cast<u32>(bytes[1]) << 8, 0);
}

// A number in e4m3: its exponent counts from 8 higher than that of fp16, whose three highest bits of the mantissa it has.
KERNEL_FN float e4m3_in(u8 byte) {
  const u32 bits = byte;
  return times(half_in((bits & 0x80) << 8 | (bits & 0x7f) << 7, 0), 256.0f);
}

// Number `index` of `WIDTH` bits in bytes of which each run of `RUN` has first the lowest numbers of all, then the next ones.
template <int RUN, int WIDTH>
KERNEL_FN int spread(const u8* bytes, int index) {
  constexpr int NUMBERS = RUN * 8 / WIDTH;
  const int of_run = index % NUMBERS;
  return bytes[index / NUMBERS * RUN + of_run % RUN] >> of_run / RUN * WIDTH & ((1 << WIDTH) - 1);
}

KERNEL_FN float whole(int number) {
  return static_cast<float>(number);
}

KERNEL_FN float as_signed(u8 byte) {
  return static_cast<float>(static_cast<s8>(byte));
}

// What numbers of 4 bits mean in `iq4_nl` and `iq4_xs`.
KERNEL_FN float step_of(int number) {
  constexpr s8 STEPS[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  return static_cast<float>(STEPS[number]);
}

// Scale and least value of part `part` of 8, 6 bits each in 12 bytes: of the second four the two highest bits lie above the six of the first four.
KERNEL_FN int scale_of_6_bits(const u8* bytes, int part) {
  return part < 4 ? bytes[part] & 63 : (bytes[part + 4] & 15) | bytes[part - 4] >> 6 << 4;
}

KERNEL_FN int least_of_6_bits(const u8* bytes, int part) {
  return part < 4 ? bytes[part + 4] & 63 : bytes[part + 4] >> 4 | bytes[part] >> 6 << 4;
}

// Each type of block: how many numbers in how many bytes, and number `index` of one.

struct Q4_0 {
  static constexpr int NUMBERS = 32, BYTES = 18;
  KERNEL_FN static float at(const u8* block, int index) {
    return times(whole(spread<16, 4>(block + 2, index) - 8), half_of(block));
  }
};

struct Q4_1 {
  static constexpr int NUMBERS = 32, BYTES = 20;
  KERNEL_FN static float at(const u8* block, int index) {
    return plus(times(whole(spread<16, 4>(block + 4, index)), half_of(block)), half_of(block + 2));
  }
};

struct Q5_0 {
  static constexpr int NUMBERS = 32, BYTES = 22;
  KERNEL_FN static float at(const u8* block, int index) {
    return times(whole((spread<16, 4>(block + 6, index) | spread<1, 1>(block + 2, index) << 4) - 16), half_of(block));
  }
};

struct Q5_1 {
  static constexpr int NUMBERS = 32, BYTES = 24;
  KERNEL_FN static float at(const u8* block, int index) {
    return plus(times(whole(spread<16, 4>(block + 8, index) | spread<1, 1>(block + 4, index) << 4), half_of(block)), half_of(block + 2));
  }
};

struct Q8_0 {
  static constexpr int NUMBERS = 32, BYTES = 34;
  KERNEL_FN static float at(const u8* block, int index) {
    return times(as_signed(block[2 + index]), half_of(block));
  }
};

struct Iq4Nl {
  static constexpr int NUMBERS = 32, BYTES = 18;
  KERNEL_FN static float at(const u8* block, int index) {
    return times(step_of(spread<16, 4>(block + 2, index)), half_of(block));
  }
};

struct Q2K {
  static constexpr int NUMBERS = 256, BYTES = 84;
  KERNEL_FN static float at(const u8* block, int index) {
    const int both = block[index / 16];
    const float least = times(whole(both >> 4), half_of(block + 82));
    return plus(times(whole(spread<32, 2>(block + 16, index)), times(whole(both & 15), half_of(block + 80))), -least);
  }
};

struct Q3K {
  static constexpr int NUMBERS = 256, BYTES = 110;
  KERNEL_FN static float at(const u8* block, int index) {
    const int part = index / 16;
    const int scale = spread<8, 4>(block + 96, part) | spread<4, 2>(block + 104, part) << 4;
    const int number = spread<32, 2>(block + 32, index) | spread<32, 1>(block, index) << 2;
    return times(whole(number - 4), times(whole(scale - 32), half_of(block + 108)));
  }
};

// `q4_k` or `q5_k`, of which this is a number.
KERNEL_FN float with_6_bits(const u8* block, int index, int number) {
  const float scale = times(whole(scale_of_6_bits(block + 4, index / 32)), half_of(block));
  const float least = times(whole(least_of_6_bits(block + 4, index / 32)), half_of(block + 2));
  return plus(times(whole(number), scale), -least);
}

struct Q4K {
  static constexpr int NUMBERS = 256, BYTES = 144;
  KERNEL_FN static float at(const u8* block, int index) {
    return with_6_bits(block, index, spread<32, 4>(block + 16, index));
  }
};

struct Q5K {
  static constexpr int NUMBERS = 256, BYTES = 176;
  KERNEL_FN static float at(const u8* block, int index) {
    return with_6_bits(block, index, spread<32, 4>(block + 48, index) | spread<32, 1>(block + 16, index) << 4);
  }
};

struct Q6K {
  static constexpr int NUMBERS = 256, BYTES = 210;
  KERNEL_FN static float at(const u8* block, int index) {
    const int number = spread<64, 4>(block, index) | spread<32, 2>(block + 128, index) << 4;
    return times(whole(number - 32), times(as_signed(block[192 + index / 16]), half_of(block + 208)));
  }
};

struct Iq4Xs {
  static constexpr int NUMBERS = 256, BYTES = 136;
  KERNEL_FN static float at(const u8* block, int index) {
    const int part = index / 32;
    const int scale = spread<1, 4>(block + 4, part) | spread<1, 2>(block + 2, part) << 4;
    return times(step_of(spread<16, 4>(block + 8, index)), times(whole(scale - 32), half_of(block)));
  }
};

// Eight numbers from `first` on, of blocks.
template <typename Block>
KERNEL_FN void from_block(float (&to)[UNPACKED_AT_ONCE], const Unpack& given, s64 first) {
  const u8* block = given.packed + first / Block::NUMBERS * Block::BYTES;
  const int in_block = static_cast<int>(first % Block::NUMBERS);
#pragma unroll
  for (int index = 0; index < UNPACKED_AT_ONCE; ++index) {
    to[index] = Block::at(block, in_block + index);
  }
}

// The same of numbers of 8 bits, each times the scale of its row.
template <typename Read>
KERNEL_FN void from_rows(float (&to)[UNPACKED_AT_ONCE], const Unpack& given, s64 first, const Read& read) {
  s64 row = first / given.row;
  s64 of_row = first % given.row;
#pragma unroll
  for (int index = 0; index < UNPACKED_AT_ONCE; ++index) {
    if (first + index < given.numbers) {
      to[index] = times(read(given.packed[first + index]), given.scales[row]);
    }
    if (++of_row == given.row) {
      of_row = 0;
      ++row;
    }
  }
}

// Eight numbers, from the eighth `place` on.
template <typename Element>
KERNEL_FN void unpack(const Unpack& given, s64 place) {
  const s64 first = place * UNPACKED_AT_ONCE;
  float numbers[UNPACKED_AT_ONCE] = {};
  switch (given.type) {
    case PackedType::E4M3:
      from_rows(numbers, given, first, [](u8 byte) { return e4m3_in(byte); });
      break;
    case PackedType::E5M2:
      // The upper byte of a number in fp16.
      from_rows(numbers, given, first, [](u8 byte) { return half_in(static_cast<u32>(byte) << 8, 0); });
      break;
    case PackedType::INT8:
      from_rows(numbers, given, first, as_signed);
      break;
    case PackedType::Q4_0:
      from_block<Q4_0>(numbers, given, first);
      break;
    case PackedType::Q4_1:
      from_block<Q4_1>(numbers, given, first);
      break;
    case PackedType::Q5_0:
      from_block<Q5_0>(numbers, given, first);
      break;
    case PackedType::Q5_1:
      from_block<Q5_1>(numbers, given, first);
      break;
    case PackedType::Q8_0:
      from_block<Q8_0>(numbers, given, first);
      break;
    case PackedType::IQ4_NL:
      from_block<Iq4Nl>(numbers, given, first);
      break;
    case PackedType::Q2_K:
      from_block<Q2K>(numbers, given, first);
      break;
    case PackedType::Q3_K:
      from_block<Q3K>(numbers, given, first);
      break;
    case PackedType::Q4_K:
      from_block<Q4K>(numbers, given, first);
      break;
    case PackedType::Q5_K:
      from_block<Q5K>(numbers, given, first);
      break;
    case PackedType::Q6_K:
      from_block<Q6K>(numbers, given, first);
      break;
    case PackedType::IQ4_XS:
      from_block<Iq4Xs>(numbers, given, first);
      break;
  }
  Element* to = static_cast<Element*>(given.target) + first;
  if (first + UNPACKED_AT_ONCE <= given.numbers) {
    Eight<Element> eight;
#pragma unroll
    for (int index = 0; index < UNPACKED_AT_ONCE; ++index) {
      set(eight.values[index], numbers[index]);
    }
    *reinterpret_cast<Eight<Element>*>(to) = eight;
  } else {
    for (int index = 0; first + index < given.numbers; ++index) {
      set(to[index], numbers[index]);
    }
  }
}

} // namespace kernels
