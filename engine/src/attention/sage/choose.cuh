// Which tiles of keys each tile of queries attends to: those whose mean has the largest product with the queries' own (SpargeAttn, arXiv:2502.18137).
//
// A mean says little of keys that are not alike, so tiles of those are attended to in any case, and queries that are not alike attend to all tiles. How alike vectors are is the mean
// cosine of all pairs of them, each with itself among those, which is the squared length of the mean of their directions. It is never below 0.

#pragma once

#include "attention.cuh"

namespace sage {

// What keys are chosen by.
struct Means {
  View keys;
  // What all keys share: `[batch, heads, channels]`.
  const float* shared;
  // `[batch, heads, tiles of 64, HEAD]`, and how alike they are: `[batch, heads, tiles]`.
  float* means;
  float* likeness;
  s64 heads;
  s64 tokens;
  s64 channels;
  s64 tiles;
};

struct Choice {
  View queries;
  // As `Means` leaves them.
  const float* means;
  const float* likeness;
  // `[batch, heads, tiles of 128 queries, 1 + tiles of keys]`: how many are chosen, and which, in their order.
  u32* chosen;
  s64 heads;
  s64 query_tokens;
  s64 channels;
  s64 key_tiles;
  // So many are chosen at least.
  s64 count;
  // Who is less alike than this is not judged by a mean.
  double alike;
};

// Of the `tokens` of a tile the mean of eight channels, and how alike they are. A lane has the channels from 8 (lane % (HEAD / 8)) on; `read` gives those of a token.
template <int HEAD, int TILE, typename Read>
KERNEL_FN void pool(PerLane<float, 8>& mean, PerLane<float, 1>& likeness, s64 tokens, const Read& read) {
  constexpr int EIGHTS = HEAD / 8;
  constexpr int AT_ONCE = LANES / EIGHTS;
  PerLane<float, 8> directions;
  fill(mean, 0.0f);
  fill(directions, 0.0f);
  for (int first = 0; first < TILE; first += AT_ONCE) {
    PerLane<float, 8> numbers;
    PerLane<float, 1> square;
    EACH_LANE(lane) {
      float eight[8];
      read(eight, first + lane / EIGHTS, lane % EIGHTS * 8);
      square(lane) = 0;
#pragma unroll
      for (int index = 0; index < 8; ++index) {
        numbers(lane, index) = eight[index];
        square(lane) += eight[index] * eight[index];
      }
    }
    sum_over_lanes<1, EIGHTS>(square);
    EACH_LANE(lane) {
      const float inverse = square(lane) > 0 ? 1 / square_root(square(lane)) : 0.0f;
#pragma unroll
      for (int index = 0; index < 8; ++index) {
        mean(lane, index) += numbers(lane, index);
        directions(lane, index) += numbers(lane, index) * inverse;
      }
    }
  }
  sum_over_lanes<EIGHTS, LANES>(mean);
  sum_over_lanes<EIGHTS, LANES>(directions);
  const float share = 1 / static_cast<float>(tokens < TILE ? tokens : TILE);
  EACH_LANE(lane) {
    likeness(lane) = 0;
#pragma unroll
    for (int index = 0; index < 8; ++index) {
      mean(lane, index) *= share;
      const float direction = directions(lane, index) * share;
      likeness(lane) += direction * direction;
    }
  }
  sum_over_lanes<1, EIGHTS>(likeness);
}

// The mean of a tile of keys, and how alike they are, by one warp.
template <typename Element, int HEAD>
KERNEL_FN void pool_keys(const Means& given, s64 batch, s64 head, s64 tile) {
  const Keys keys{given.keys, given.shared, nullptr, nullptr, given.heads, given.tokens, given.channels, given.tiles};
  PerLane<float, 8> mean;
  PerLane<float, 1> likeness;
  pool<HEAD, KEY_TILE>(mean, likeness, given.tokens - tile * KEY_TILE, [&](float (&to)[8], int token, int channel) {
    centred<Element>(to, keys, batch, head, tile * KEY_TILE + token, channel);
  });
  const s64 number = (batch * given.heads + head) * given.tiles + tile;
  EACH_LANE(lane) {
    if (lane < HEAD / 8) {
      Eight<float> eight;
#pragma unroll
      for (int index = 0; index < 8; ++index) {
        eight.values[index] = mean(lane, index);
      }
      reinterpret_cast<Eight<float>*>(given.means + number * HEAD)[lane] = eight;
    }
    if (lane == 0) {
      given.likeness[number] = likeness(lane);
    }
  }
}

// A number that is larger where the float is; never 0.
KERNEL_FN u32 in_order(float x) {
  const u32 bits = bits_of(x);
  return bits >> 31 ? ~bits : bits | 1u << 31;
}

// Of `tiles` numbers the one that `count` of them reach: found bit by bit. A lane looks at those that it wrote.
KERNEL_FN u32 reached_by(s64 count, const u32* numbers, s64 tiles) {
  u32 least = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const u32 tried = least | 1u << bit;
    PerLane<float, 1> reach;
    fill(reach, 0.0f);
    for (s64 first = 0; first < tiles; first += LANES) {
      EACH_LANE(lane) {
        if (first + lane < tiles && numbers[first + lane] >= tried) {
          reach(lane) += 1;
        }
      }
    }
    sum_over_lanes<1, LANES>(reach);
    if (reach(0) >= static_cast<float>(count)) {
      least = tried;
    }
  }
  return least;
}

// Chooses for a tile of queries, by one warp. `mean` is room for `HEAD` floats of its own.
template <typename Element, int HEAD>
KERNEL_FN void choose(const Choice& given, float* mean, s64 batch, s64 head, s64 query_tile) {
  const s64 first_query = query_tile * QUERY_TILE;
  const s64 tiles = given.key_tiles;
  const s64 number = batch * given.heads + head;
  const s64 query_tiles = (given.query_tokens + QUERY_TILE - 1) / QUERY_TILE;
  u32* const row = given.chosen + (number * query_tiles + query_tile) * (1 + tiles);
  u32* const numbers = row + 1;

  // 1. The queries' mean, for all lanes.
  PerLane<float, 8> own;
  PerLane<float, 1> likeness;
  pool<HEAD, QUERY_TILE>(own, likeness, given.query_tokens - first_query, [&](float (&to)[8], int token, int channel) {
    read_eight<Element>(to, given.queries, batch, head, first_query + token, given.query_tokens, channel, given.channels);
  });
  EACH_LANE(lane) {
    if (lane < HEAD / 8) {
#pragma unroll
      for (int index = 0; index < 8; ++index) {
        mean[8 * lane + index] = own(lane, index);
      }
    }
  }
  warp_here();
  const float alike = static_cast<float>(given.alike);
  const bool takes_all = likeness(0) < alike;

  // 2. Its product with each tile's.
  for (s64 first = 0; first < tiles; first += LANES) {
    EACH_LANE(lane) {
      const s64 tile = first + lane;
      if (tile < tiles) {
        const Eight<float>* means = reinterpret_cast<const Eight<float>*>(given.means + (number * tiles + tile) * HEAD);
        float product = 0;
        for (int eighth = 0; eighth < HEAD / 8; ++eighth) {
          const Eight<float> eight = means[eighth];
#pragma unroll
          for (int index = 0; index < 8; ++index) {
            product += mean[8 * eighth + index] * eight.values[index];
          }
        }
        numbers[tile] = in_order(product);
      }
    }
  }

  // 3. The least of those that are chosen, and how many that are no larger than it have room.
  const u32 least = reached_by(given.count, numbers, tiles);
  PerLane<float, 1> larger;
  fill(larger, 0.0f);
  for (s64 first = 0; first < tiles; first += LANES) {
    EACH_LANE(lane) {
      if (first + lane < tiles && numbers[first + lane] > least) {
        larger(lane) += 1;
      }
    }
  }
  sum_over_lanes<1, LANES>(larger);
  int room = static_cast<int>(given.count) - static_cast<int>(larger(0));

  // 4. The chosen ones, in place of the numbers: never beyond those that were read.
  int taken = 0;
  for (s64 first = 0; first < tiles; first += LANES) {
    PerLane<int, 1> is_equal, is_chosen;
    EACH_LANE(lane) {
      is_equal(lane) = first + lane < tiles && numbers[first + lane] == least;
    }
    const u32 equal = lanes_where(is_equal);
    EACH_LANE(lane) {
      const s64 tile = first + lane;
      const bool has_room = is_equal(lane) && lanes_before(equal, lane) < room;
      is_chosen(lane) = tile < tiles && (takes_all || has_room || numbers[tile] > least || given.likeness[number * tiles + tile] < alike);
    }
    const u32 chosen = lanes_where(is_chosen);
    EACH_LANE(lane) {
      if (is_chosen(lane)) {
        numbers[taken + lanes_before(chosen, lane)] = static_cast<u32>(first + lane);
      }
    }
    room -= lanes_before(equal, LANES);
    taken += lanes_before(chosen, LANES);
  }
  EACH_LANE(lane) {
    if (lane == 0) {
      row[0] = static_cast<u32>(taken);
    }
  }
}

} // namespace sage
