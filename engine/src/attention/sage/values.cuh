// How probabilities are multiplied with values: in fp16, or in FP8.
//
// Scores come out of the tensor cores as fragments of 16 queries by 8 keys, in which lane 4 g + t has keys 2 t and 2 t + 1. As the factor of the next product they must be
// fragments in which it has whole registers of neighbours: in fp16 those are the same two keys; in FP8 they are four, so there the keys of two fragments stand
// side by side, and values are stored in that order (`place`). The sum over keys does not mind.

#pragma once

#include "heads.cuh"

namespace sage {

// So many fragments of 8 channels that are multiplied at once.
constexpr int CHANNEL_FRAGMENTS = 2;

// Values in fp16, summed in fp32.
struct HalfValues {
  static constexpr bool HAS_SCALES = false;
  static constexpr int BYTES = 2;
  // Keys of one product.
  static constexpr int KEYS = 16;
  // Probabilities are multiplied by two to the power of this, to use the type's range.
  static constexpr float SHIFT = 0;

  KERNEL_FN static int place(int token) {
    return token;
  }

  KERNEL_FN static void store(u8* packed, s64 place, float value) {
    reinterpret_cast<u16*>(packed)[place] = static_cast<u16>(bounded_half_from(value));
  }

  // The probabilities of 16 keys, from two fragments.
  template <typename Fragment>
  KERNEL_FN static void pack(PerLane<u32, 4>& to, const Fragment* from) {
    EACH_LANE(lane) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const Fragment& fragment = from[part / 2];
        to(lane, part) = halves_from(fragment(lane, part % 2 * 2), fragment(lane, part % 2 * 2 + 1));
      }
    }
  }

  // The sums of a tile for two fragments of channels: none of its own.
  struct Tile {
    KERNEL_FN void add(PerLane<float, 4>* sums, const PerLane<u32, 4>& probabilities, const PerLane<u32, 4>& values) {
#pragma unroll
      for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
        multiply_half(sums[fragment], probabilities, values, 2 * fragment);
      }
    }

    KERNEL_FN void close(PerLane<float, 4>*) {}
  };
};

struct Fp8Base {
  static constexpr bool HAS_SCALES = true;
  static constexpr int BYTES = 1;
  static constexpr int KEYS = 32;
  // log2(448): the largest probability is the largest number of e4m3.
  static constexpr float SHIFT = 8.807354922f;

  // Where token `token` of 32 is stored. Byte i of word t of the half h of a row is then key 16 h + 8 (i / 2) + 2 t + i % 2.
  KERNEL_FN static int place(int token) {
    const int half = token / 16, fragment = token / 8 % 2, word = token % 8 / 2;
    return 16 * half + 4 * word + 2 * fragment + token % 2;
  }

  KERNEL_FN static void store(u8* packed, s64 place, float value) {
    packed[place] = static_cast<u8>(e4m3s_from(value, 0.0f) & 0xff);
  }

  // The probabilities of 32 keys, from four fragments.
  template <typename Fragment>
  KERNEL_FN static void pack(PerLane<u32, 4>& to, const Fragment* from) {
    EACH_LANE(lane) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const Fragment& first = from[part / 2 * 2];
        const Fragment& second = from[part / 2 * 2 + 1];
        const int row = part % 2 * 2;
        to(lane, part) = e4m3s_from(first(lane, row), first(lane, row + 1)) | e4m3s_from(second(lane, row), second(lane, row + 1)) << 16;
      }
    }
  }
};

// Values in FP8, of which each tile is summed by itself and then added in fp32: the tensor cores' own sums of FP8 keep fewer bits than fp32 has, which would tell over thousands
// of keys (SageAttention2, section 3.4).
struct Fp8Values : Fp8Base {
  struct Tile {
    PerLane<float, 4> own[CHANNEL_FRAGMENTS];

    KERNEL_FN Tile() {
#pragma unroll
      for (auto& fragment : own) {
        fill(fragment, 0.0f);
      }
    }

    KERNEL_FN void add(PerLane<float, 4>*, const PerLane<u32, 4>& probabilities, const PerLane<u32, 4>& values) {
#pragma unroll
      for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
        multiply_e4m3(own[fragment], probabilities, values, 2 * fragment);
      }
    }

    KERNEL_FN void close(PerLane<float, 4>* sums) {
#pragma unroll
      for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
        EACH_LANE(lane) {
#pragma unroll
          for (int index = 0; index < 4; ++index) {
            sums[fragment](lane, index) += own[fragment](lane, index);
          }
        }
      }
    }
  };
};

// The same with a tile's sum in fp16, which is twice as fast on GeForce cards. Values are then scaled to 2.25 at most: 64 keys of 448 times 2.25 come to 64,512, and
// fp16 goes to 65,504 (SageAttention2++, arXiv:2505.21136).
struct Fp8ValuesInHalf : Fp8Base {
  struct Tile {
    PerLane<u32, 2> own[CHANNEL_FRAGMENTS];

    KERNEL_FN Tile() {
#pragma unroll
      for (auto& fragment : own) {
        fill(fragment, 0u);
      }
    }

    KERNEL_FN void add(PerLane<float, 4>*, const PerLane<u32, 4>& probabilities, const PerLane<u32, 4>& values) {
#pragma unroll
      for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
        multiply_e4m3_in_half(own[fragment], probabilities, values, 2 * fragment);
      }
    }

    KERNEL_FN void close(PerLane<float, 4>* sums) {
#pragma unroll
      for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
        EACH_LANE(lane) {
#pragma unroll
          for (int index = 0; index < 4; ++index) {
            sums[fragment](lane, index) += half_in(own[fragment](lane, index / 2), index % 2);
          }
        }
      }
    }
  };
};

} // namespace sage
