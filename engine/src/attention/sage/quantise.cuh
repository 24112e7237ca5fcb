// Keys and values as the tensor cores take them: once for all queries.
//
// Keys: minus their mean over all tokens, in int8, with a scale for each tile of 64. What all keys share adds the same number to all scores of a query, which
// softmax takes out again; without it outliers in single channels do not spoil the scale (SageAttention, arXiv:2410.02367, section 4.2).
// Values: in int8, with a scale for each channel of each tile, and transposed, so that the tokens of a channel lie side by side as a product over tokens wants them.
// Tokens are padded to whole tiles and channels to `HEAD`, with zeros.

#pragma once

#include "heads.cuh"

namespace sage {

// Keys of a tile.
constexpr int KEY_TILE = 64;

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

// Where token `token` of a tile lies among those of a channel.
//
// Scores come out of the tensor cores as fragments of 16 queries by 8 keys, in which lane 4 g + t has keys 2 t and 2 t + 1. As the factor of the next product a lane must have words of
// four neighbours: so the keys of two fragments stand side by side. Byte i of word t of the sixteenth h is key 16 h + 8 (i / 2) + 2 t + i % 2. The sum over keys does not mind.
KERNEL_FN int value_place(int token) {
  const int fragment = token / 8 % 2, word = token % 8 / 2;
  return token / 16 * 16 + 4 * word + 2 * fragment + token % 2;
}

struct Values {
  View values;
  // `[batch, heads, HEAD, tiles of 64, 64]` and `[batch, heads, tiles, HEAD]`.
  u8* packed;
  float* scales;
  s64 heads;
  s64 tokens;
  s64 channels;
  s64 tiles;
};

// Eight channels from `channel` on of a tile, by one warp.
template <typename Element, int HEAD>
KERNEL_FN void quantise_values(const Values& given, s64 batch, s64 head, s64 tile, int channel) {
  constexpr int TOKENS = KEY_TILE / LANES;
  const s64 number = batch * given.heads + head;
  PerLane<float, 8> numbers[TOKENS];
  PerLane<float, 8> largest;
  fill(largest, 0.0f);
#pragma unroll
  for (int part = 0; part < TOKENS; ++part) {
    EACH_LANE(lane) {
      float eight[8];
      read_eight<Element>(eight, given.values, batch, head, tile * KEY_TILE + part * LANES + lane, given.tokens, channel, given.channels);
#pragma unroll
      for (int index = 0; index < 8; ++index) {
        numbers[part](lane, index) = eight[index];
        largest(lane, index) = larger(largest(lane, index), absolute(eight[index]));
      }
    }
  }
  largest_of_warp(largest);
  float* const scales = given.scales + (number * given.tiles + tile) * HEAD + channel;
  EACH_LANE(lane) {
#pragma unroll
    for (int index = 0; index < 8; ++index) {
      const float scale = int8_scale(largest(lane, index));
      const float inverse = 1 / scale;
      u8* const row = given.packed + ((number * HEAD + channel + index) * given.tiles + tile) * KEY_TILE;
#pragma unroll
      for (int part = 0; part < TOKENS; ++part) {
        row[value_place(part * LANES + lane)] = static_cast<u8>(rounded_to_int8(numbers[part](lane, index) * inverse));
      }
      if (lane == index) {
        scales[index] = scale;
      }
    }
  }
}

} // namespace sage
