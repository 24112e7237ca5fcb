// Keys and values as the tensor cores take them: once for all queries.
//
// Keys: minus their mean over all tokens, in int8, with a scale for each tile of 64. What all keys share adds the same number to all scores of a query, which
// softmax takes out again; without it outliers in single channels do not spoil the scale (SageAttention, arXiv:2410.02367, section 4.2).
// Values: transposed, so that the tokens of a channel lie side by side as a product over tokens wants them; in fp16, or in FP8 with a scale for each channel
// (SageAttention2, arXiv:2411.10958).
// Tokens are padded to whole tiles and channels to `HEAD`, with zeros.

#pragma once

#include "heads.cuh"

namespace sage {

// Keys of a tile.
constexpr int KEY_TILE = 64;
// Tokens that a warp transposes at a time: one a lane.
constexpr int VALUE_TOKENS = LANES;

struct Keys {
  View keys;
  // `[batch, heads, channels]`.
  const float* means;
  // `[batch, heads, tiles of 64, 64, HEAD]` and `[batch, heads, tiles]`.
  u8* packed;
  float* scales;
  s64 heads;
  s64 tokens;
  s64 channels;
  s64 tiles;
};

// Eight channels of a key minus the mean; zeros beyond the last token.
template <typename Element>
KERNEL_FN void centred(float (&to)[8], const Keys& given, s64 batch, s64 head, s64 token, s64 channel) {
  read_eight<Element>(to, given.keys, batch, head, token, given.tokens, channel, given.channels);
  if (token < given.tokens && channel < given.channels) {
    const float* means = given.means + (batch * given.heads + head) * given.channels + channel;
#pragma unroll
    for (int index = 0; index < 8; ++index) {
      to[index] -= means[index];
    }
  }
}

// Tile `tile` of a head, by one warp.
template <typename Element, int HEAD>
KERNEL_FN void quantise_keys(const Keys& given, s64 batch, s64 head, s64 tile) {
  // Lanes side by side read channels side by side.
  constexpr int EIGHTS = HEAD / 8;
  constexpr int ROUNDS = KEY_TILE * EIGHTS / LANES;
  float eight[8];
  // 1. The scale.
  PerLane<float, 1> largest;
  fill(largest, 0.0f);
  for (int round = 0; round < ROUNDS; ++round) {
    EACH_LANE(lane) {
      const int place = round * LANES + lane;
      centred<Element>(eight, given, batch, head, tile * KEY_TILE + place / EIGHTS, place % EIGHTS * 8);
      for (const float x : eight) {
        largest(lane) = larger(largest(lane), absolute(x));
      }
    }
  }
  largest_of_warp(largest);
  const s64 number = (batch * given.heads + head) * given.tiles + tile;
  const float scale = int8_scale(largest(0));
  EACH_LANE(lane) {
    if (lane == 0) {
      given.scales[number] = scale;
    }
  }
  // 2. The tile, read once more: it is in the cache.
  EightBytes* to = reinterpret_cast<EightBytes*>(given.packed + number * KEY_TILE * HEAD);
  for (int round = 0; round < ROUNDS; ++round) {
    EACH_LANE(lane) {
      const int place = round * LANES + lane;
      centred<Element>(eight, given, batch, head, tile * KEY_TILE + place / EIGHTS, place % EIGHTS * 8);
      EightBytes packed;
      pack_int8(packed.words, eight, scale);
      to[place] = packed;
    }
  }
}

struct ValuesIn {
  View values;
  // `[batch, heads, HEAD, tokens in whole tiles]`, and `[batch, heads, channels]` where values have scales.
  u8* packed;
  const float* scales;
  s64 heads;
  s64 tokens;
  s64 channels;
  // Tiles of 64 keys.
  s64 tiles;
};

// Eight channels from `channel` on of 32 tokens, by one warp. `Values` says how values are kept: see `values.cuh`.
template <typename Element, int HEAD, typename Values>
KERNEL_FN void quantise_values(const ValuesIn& given, s64 batch, s64 head, s64 group, int channel) {
  const s64 tokens = given.tiles * KEY_TILE;
  const s64 number = batch * given.heads + head;
  EACH_LANE(lane) {
    float eight[8];
    read_eight<Element>(eight, given.values, batch, head, group * VALUE_TOKENS + lane, given.tokens, channel, given.channels);
#pragma unroll
    for (int index = 0; index < 8; ++index) {
      const bool is_scaled = Values::HAS_SCALES && channel < given.channels;
      const float scale = is_scaled ? given.scales[number * given.channels + channel + index] : 1.0f;
      const s64 row = number * HEAD + channel + index;
      Values::store(given.packed, row * tokens + group * VALUE_TOKENS + Values::place(lane), eight[index] / scale);
    }
  }
}

} // namespace sage
