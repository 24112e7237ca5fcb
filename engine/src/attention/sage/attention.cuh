// Attention in 8 bits: softmax(q kᵀ / √D) v for 128 queries of a head, by four warps of 32 queries each.
//
// A tile of 64 keys and values at a time goes through shared memory, and no score matrix exists. Scores of int8 are summed exactly and scaled back to fp32; softmax is FlashAttention's
// (arXiv:2307.08691): of each query the largest score and the sum so far, by which earlier results are scaled down as a larger one comes. Powers are of two:
// log2(e) and 1 / √D are in the queries' scale. Probabilities of a tile are whole numbers up to 255, beside the largest of the query's row in that tile: so a tile of small ones is kept as well as
// others, and what it weighs beside them is a factor in fp32. Their products with values are exact too, and then scaled, by channel. The sum that a row is divided by is of the same whole
// numbers, so what is rounded away takes no part of the whole with it. Tails: keys beyond the last have probability 0, and rows beyond the last query are computed of zeros and not written.

#pragma once

#include "quantise.cuh"

namespace sage {

constexpr int QUERY_TILE = 128;
// Queries of a warp: two fragments of 16.
constexpr int WARP_QUERIES = QUERY_TILE / WARPS;
constexpr int QUERY_FRAGMENTS = WARP_QUERIES / 16;
// Fragments of 8 keys in a tile.
constexpr int KEY_FRAGMENTS = KEY_TILE / 8;
// Keys of one product, of 32 bytes, and the products of a tile.
constexpr int PRODUCT_KEYS = 32;
constexpr int PRODUCTS = KEY_TILE / PRODUCT_KEYS;
// So many fragments of 8 channels are multiplied at once.
constexpr int CHANNEL_FRAGMENTS = 2;
// log2(255): the largest probability of a row and tile is the largest byte.
constexpr float BYTE_SHIFT = 7.994353437f;
// A lane has two rows of each fragment of queries: 8 apart.
constexpr int ROWS = 2 * QUERY_FRAGMENTS;

struct Attention {
  View queries;
  View result;
  // As `Keys` and `Values` leave them.
  const u8* keys;
  const float* key_scales;
  const u8* values;
  const float* value_scales;
  s64 heads;
  s64 query_tokens;
  s64 key_tokens;
  s64 channels;
  s64 key_tiles;
  // As `Choice` leaves them (`choose.cuh`); null where queries attend to all keys.
  const u32* chosen;
  // Where queries attend to chosen tiles, values whose probabilities are below two to the power of minus this, beside the largest one until then, are left out.
  double negligible;
};

// The tiles of keys that a tile of queries attends to, in their order: all.
struct AllTiles {
  static constexpr bool ARE_CHOSEN = false;
  int count;

  KERNEL_FN AllTiles(const Attention& given, s64, s64) : count(static_cast<int>(given.key_tiles)) {}

  KERNEL_FN int at(int turn) const {
    return turn;
  }
};

// Those that were chosen: one at least.
struct ChosenTiles {
  static constexpr bool ARE_CHOSEN = true;
  const u32* tiles;
  int count;

  KERNEL_FN ChosenTiles(const Attention& given, s64 number, s64 query_tile) {
    const s64 query_tiles = (given.query_tokens + QUERY_TILE - 1) / QUERY_TILE;
    const u32* row = given.chosen + (number * query_tiles + query_tile) * (1 + given.key_tiles);
    tiles = row + 1;
    count = static_cast<int>(row[0]);
  }

  KERNEL_FN int at(int turn) const {
    return static_cast<int>(tiles[turn]);
  }
};

// The bytes of a block's shared memory.
template <int HEAD>
constexpr int SHARED_BYTES = (QUERY_TILE + 2 * KEY_TILE + static_cast<int>(sizeof(float))) * HEAD;

// Less than any score: two to the power of it is 0 beside every other.
constexpr float NO_SCORE = -1e30f;

// Where 16 bytes of a tile lie in shared memory, whose rows have 64 or 128 bytes: turned by the row, so that the same column of eight rows comes from all banks at once.
template <int ROW_BYTES>
KERNEL_FN int place_in_tile(int row, int sixteenth) {
  static_assert(ROW_BYTES == 64 || ROW_BYTES == 128, "a turn for each");
  const int turn = ROW_BYTES == 128 ? row % 8 : row / 2 % 4;
  return row * ROW_BYTES + (sixteenth ^ turn) * 16;
}

// Begins to copy `COUNT` rows, `stride` bytes apart, into a tile.
template <int COUNT, int ROW_BYTES>
KERNEL_FN void copy_tile(u8* tile, const u8* from, s64 stride) {
  constexpr int SIXTEENTHS = ROW_BYTES / 16;
  EACH_OF_BLOCK(index, COUNT * SIXTEENTHS) {
    const int row = index / SIXTEENTHS, sixteenth = index % SIXTEENTHS;
    copy_ahead(tile + place_in_tile<ROW_BYTES>(row, sixteenth), from + row * stride + sixteenth * 16);
  }
}

// The values of a tile, transposed, and the scale of each of its channels.
template <int HEAD>
KERNEL_FN void copy_values(u8* tile, float* scales, const Attention& given, s64 number, int key_tile) {
  const s64 stride = given.key_tiles * KEY_TILE;
  copy_tile<HEAD, KEY_TILE>(tile, given.values + number * HEAD * stride + static_cast<s64>(key_tile) * KEY_TILE, stride);
  constexpr int FOURS = HEAD / 4;
  EACH_OF_BLOCK(index, FOURS) {
    const float* const from = given.value_scales + (number * given.key_tiles + key_tile) * HEAD;
    copy_ahead(reinterpret_cast<u8*>(scales + 4 * index), reinterpret_cast<const u8*>(from + 4 * index));
  }
}

// The fragment of 16 rows by 32 bytes that begins there, as the first factor.
template <int ROW_BYTES>
KERNEL_FN void load_first(PerLane<u32, 4>& to, const u8* tile, int row, int sixteenth) {
  PerLane<int, 1> places;
  EACH_LANE(lane) {
    places(lane) = place_in_tile<ROW_BYTES>(row + lane % 16, sixteenth + lane / 16);
  }
  load_matrices(to, tile, places);
}

// Two fragments of 8 rows by 32 bytes each, as second factors, of which rows are columns.
template <int ROW_BYTES>
KERNEL_FN void load_second(PerLane<u32, 4>& to, const u8* tile, int row, int sixteenth) {
  PerLane<int, 1> places;
  EACH_LANE(lane) {
    places(lane) = place_in_tile<ROW_BYTES>(row + lane / 16 * 8 + lane % 8, sixteenth + lane / 8 % 2);
  }
  load_matrices(to, tile, places);
}

// A warp's 32 queries in int8 into its rows of the tile, and their scale.
template <typename Element, int HEAD>
KERNEL_FN float quantise_queries(u8* tile, const Attention& given, s64 batch, s64 head, s64 first, int warp) {
  constexpr int EIGHTS = HEAD / 8;
  constexpr int ROUNDS = WARP_QUERIES * EIGHTS / LANES;
  float eight[8];
  PerLane<float, 1> largest;
  fill(largest, 0.0f);
  for (int round = 0; round < ROUNDS; ++round) {
    EACH_LANE(lane) {
      const int place = round * LANES + lane;
      read_eight<Element>(eight, given.queries, batch, head, first + place / EIGHTS, given.query_tokens, place % EIGHTS * 8, given.channels);
      for (const float x : eight) {
        largest(lane) = larger(largest(lane), absolute(x));
      }
    }
  }
  largest_of_warp(largest);
  const float scale = int8_scale(largest(0));
  for (int round = 0; round < ROUNDS; ++round) {
    EACH_LANE(lane) {
      const int place = round * LANES + lane;
      const int row = warp * WARP_QUERIES + place / EIGHTS, channel = place % EIGHTS * 8;
      read_eight<Element>(eight, given.queries, batch, head, first + place / EIGHTS, given.query_tokens, channel, given.channels);
      EightBytes packed;
      pack_int8(packed.words, eight, scale);
      *reinterpret_cast<EightBytes*>(tile + place_in_tile<HEAD>(row, channel / 16) + channel % 16) = packed;
    }
  }
  return scale;
}

// What a warp has found of its queries so far.
template <int HEAD>
struct Found {
  // The largest score of each row; of its probabilities the sum of those that the lane has seen.
  PerLane<float, ROWS> largest;
  PerLane<float, ROWS> total;
  // What those of the tile at hand weigh beside the largest, and what all before it do.
  PerLane<float, ROWS> share;
  PerLane<float, ROWS> shrinks;
  PerLane<float, 4> sums[QUERY_FRAGMENTS][HEAD / 8];
  // Of the tile at hand the largest score of a row less the largest so far: of the rows of the lane the one that comes nearest.
  PerLane<float, 1> nearest;

  KERNEL_FN Found() {
    fill(largest, NO_SCORE);
    fill(total, 0.0f);
    for (auto& row : sums) {
      for (auto& fragment : row) {
        fill(fragment, 0.0f);
      }
    }
  }
};

// Scores of a warp's queries and the keys of a tile, in whole numbers.
template <int HEAD>
KERNEL_FN void score(PerLane<int, 4> (&scores)[QUERY_FRAGMENTS][KEY_FRAGMENTS], const u8* queries, const u8* keys, int warp) {
#pragma unroll
  for (int step = 0; step < HEAD / 32; ++step) {
    PerLane<u32, 4> query[QUERY_FRAGMENTS];
#pragma unroll
    for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
      load_first<HEAD>(query[part], queries, warp * WARP_QUERIES + 16 * part, 2 * step);
    }
#pragma unroll
    for (int pair = 0; pair < KEY_FRAGMENTS / 2; ++pair) {
      PerLane<u32, 4> key;
      load_second<HEAD>(key, keys, 16 * pair, 2 * step);
#pragma unroll
      for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
        multiply_bytes<s8>(scores[part][2 * pair], query[part], key, 0);
        multiply_bytes<s8>(scores[part][2 * pair + 1], query[part], key, 2);
      }
    }
  }
}

// Takes the scores of all but the first `keys` of a tile out.
KERNEL_FN void hide_beyond(PerLane<float, 4> (&scores)[KEY_FRAGMENTS], int keys) {
#pragma unroll
  for (int fragment = 0; fragment < KEY_FRAGMENTS; ++fragment) {
    EACH_LANE(lane) {
#pragma unroll
      for (int index = 0; index < 4; ++index) {
        if (8 * fragment + 2 * (lane % 4) + index % 2 >= keys) {
          scores[fragment](lane, index) = NO_SCORE;
        }
      }
    }
  }
}

// Probabilities of a row of a lane from its scores, up to 255 beside the tile's largest. Scores are floats whose differences, by `scale`, are those of the powers.
template <int HEAD>
KERNEL_FN void weigh(PerLane<float, 4> (&scores)[KEY_FRAGMENTS], Found<HEAD>& found, float scale, int part, int row) {
  const int number = 2 * part + row;
  PerLane<float, 4> over;
  EACH_LANE(lane) {
    over(lane, 0) = scores[0](lane, 2 * row);
#pragma unroll
    for (int index = 1; index < 2 * KEY_FRAGMENTS; ++index) {
      over(lane, 0) = larger(over(lane, 0), scores[index / 2](lane, 2 * row + index % 2));
    }
  }
  over_row<false>(over, 0);
  EACH_LANE(lane) {
    const float of_tile = from_whole_zero(over(lane, 0)) * scale;
    const float largest = larger(found.largest(lane, number), of_tile);
    found.shrinks(lane, number) = power_of_two(found.largest(lane, number) - largest);
    found.share(lane, number) = power_of_two(of_tile - largest);
    found.largest(lane, number) = largest;
    found.nearest(lane) = larger(found.nearest(lane), of_tile - largest);
#pragma unroll
    for (int index = 0; index < 2 * KEY_FRAGMENTS; ++index) {
      float& score = scores[index / 2](lane, 2 * row + index % 2);
      score = power_of_two((score - over(lane, 0)) * scale + BYTE_SHIFT);
    }
  }
}

// Scales what rows have so far down to the largest score. Most tiles have none that is larger.
template <int HEAD>
KERNEL_FN void shrink(Found<HEAD>& found) {
  PerLane<int, 1> is_less;
  EACH_LANE(lane) {
    is_less(lane) = 0;
#pragma unroll
    for (int number = 0; number < ROWS; ++number) {
      is_less(lane) |= found.shrinks(lane, number) != 1.0f;
    }
  }
  if (lanes_where(is_less) == 0) {
    return;
  }
  EACH_LANE(lane) {
#pragma unroll
    for (int number = 0; number < ROWS; ++number) {
      const float shrinks = found.shrinks(lane, number);
      found.total(lane, number) *= shrinks;
#pragma unroll
      for (int channel = 0; channel < HEAD / 8; ++channel) {
        found.sums[number / 2][channel](lane, number % 2 * 2) *= shrinks;
        found.sums[number / 2][channel](lane, number % 2 * 2 + 1) *= shrinks;
      }
    }
  }
}

// Probabilities as the factor of a product, a byte each, in the order of `value_place`; and their sum.
KERNEL_FN void pack(PerLane<u32, 4> (&to)[PRODUCTS], const PerLane<float, 4> (&from)[KEY_FRAGMENTS], PerLane<u32, ROWS>& totals, int part) {
  EACH_LANE(lane) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      u32 total = 0;
#pragma unroll
      for (int half = 0; half < 2 * PRODUCTS; ++half) {
        const auto& first = from[2 * half];
        const auto& second = from[2 * half + 1];
        const u32 word = lowest_bytes(whole_byte(first(lane, 2 * row)), whole_byte(first(lane, 2 * row + 1)), whole_byte(second(lane, 2 * row)),
                                      whole_byte(second(lane, 2 * row + 1)));
        to[half / 2](lane, half % 2 * 2 + row) = word;
        total = plus_bytes(total, word);
      }
      totals(lane, 2 * part + row) = total;
    }
  }
}

// Adds the values of a tile, each with its probability.
template <int HEAD>
KERNEL_FN void add_values(Found<HEAD>& found, const PerLane<u32, 4> (&probabilities)[QUERY_FRAGMENTS][PRODUCTS], const u8* tile, const float* scales) {
#pragma unroll
  for (int pair = 0; pair < HEAD / 8 / CHANNEL_FRAGMENTS; ++pair) {
    PerLane<int, 4> products[QUERY_FRAGMENTS][CHANNEL_FRAGMENTS];
#pragma unroll
    for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
#pragma unroll
      for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
        fill(products[part][fragment], WHOLE_ZERO);
      }
    }
#pragma unroll
    for (int product = 0; product < PRODUCTS; ++product) {
      PerLane<u32, 4> values;
      load_second<KEY_TILE>(values, tile, 16 * pair, 2 * product);
#pragma unroll
      for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
#pragma unroll
        for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
          multiply_bytes<u8>(products[part][fragment], probabilities[part][product], values, 2 * fragment);
        }
      }
    }
    EACH_LANE(lane) {
#pragma unroll
      for (int fragment = 0; fragment < CHANNEL_FRAGMENTS; ++fragment) {
        const int number = CHANNEL_FRAGMENTS * pair + fragment;
        const Pair<float> scale = *reinterpret_cast<const Pair<float>*>(scales + 8 * number + 2 * (lane % 4));
#pragma unroll
        for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
#pragma unroll
          for (int index = 0; index < 4; ++index) {
            const float share = found.share(lane, 2 * part + index / 2) * scale.values[index % 2];
            found.sums[part][number](lane, index) += from_whole_zero(float_of_bits(static_cast<u32>(products[part][fragment](lane, index)))) * share;
          }
        }
      }
    }
  }
}

// The result of a warp's queries.
template <typename Element, int HEAD>
KERNEL_FN void write(Found<HEAD>& found, const Attention& given, s64 batch, s64 head, s64 first) {
#pragma unroll
  for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      over_row<true>(found.total, 2 * part + row);
      EACH_LANE(lane) {
        const s64 query = first + 16 * part + 8 * row + lane / 4;
        if (query < given.query_tokens) {
          Element* to = given.result.row<Element>(batch, head, query);
          const float share = 1 / found.total(lane, 2 * part + row);
#pragma unroll
          for (int fragment = 0; fragment < HEAD / 8; ++fragment) {
            const int channel = 8 * fragment + 2 * (lane % 4);
            if (channel < given.channels) {
              Pair<Element> pair;
#pragma unroll
              for (int index = 0; index < 2; ++index) {
                set(pair.values[index], found.sums[part][fragment](lane, 2 * row + index) * share);
              }
              *reinterpret_cast<Pair<Element>*>(to + channel) = pair;
            }
          }
        }
      }
    }
  }
}

// The whole of it for one warp of a block. `shared` has `SHARED_BYTES` bytes, on a multiple of 128.
template <typename Element, int HEAD, typename Tiles>
KERNEL_FN void attend(const Attention& given, u8* shared, s64 batch, s64 head, s64 query_tile, int warp) {
  u8* const query_tile_bytes = shared;
  u8* const key_tile_bytes = query_tile_bytes + QUERY_TILE * HEAD;
  u8* const value_tile_bytes = key_tile_bytes + KEY_TILE * HEAD;
  float* const value_scales = reinterpret_cast<float*>(value_tile_bytes + HEAD * KEY_TILE);

  const s64 number = batch * given.heads + head;
  const u8* const keys = given.keys + number * given.key_tiles * KEY_TILE * HEAD;
  const float* const key_scales = given.key_scales + number * given.key_tiles;

  // 1. The first tiles are on their way while queries are rounded. A warp reads only the queries that it wrote, so no other need be waited for.
  const Tiles tiles(given, number, query_tile);
  int tile = tiles.at(0);
  copy_tile<KEY_TILE, HEAD>(key_tile_bytes, keys + static_cast<s64>(tile) * KEY_TILE * HEAD, HEAD);
  close_copies();
  copy_values<HEAD>(value_tile_bytes, value_scales, given, number, tile);
  close_copies();
  const s64 first = query_tile * QUERY_TILE + warp * WARP_QUERIES;
  const float query_scale = quantise_queries<Element, HEAD>(query_tile_bytes, given, batch, head, first, warp);
  // log2(e) / √D.
  const float score_scale = query_scale * 1.4426950408889634f / sqrtf(static_cast<float>(given.channels));

  Found<HEAD> found;
  for (int turn = 0; turn < tiles.count; ++turn) {
    const bool is_last = turn + 1 == tiles.count;
    const int next = is_last ? tile : tiles.at(turn + 1);
    // 2. Scores. Then the next keys may come.
    arrived<1>();
    PerLane<int, 4> whole_scores[QUERY_FRAGMENTS][KEY_FRAGMENTS];
#pragma unroll
    for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
#pragma unroll
      for (int fragment = 0; fragment < KEY_FRAGMENTS; ++fragment) {
        fill(whole_scores[part][fragment], WHOLE_ZERO);
      }
    }
    score<HEAD>(whole_scores, query_tile_bytes, key_tile_bytes, warp);
    all_here();
    if (!is_last) {
      copy_tile<KEY_TILE, HEAD>(key_tile_bytes, keys + static_cast<s64>(next) * KEY_TILE * HEAD, HEAD);
    }
    close_copies();

    // 3. Probabilities.
    const float scale = score_scale * key_scales[tile];
    PerLane<u32, 4> probabilities[QUERY_FRAGMENTS][PRODUCTS];
    PerLane<u32, ROWS> totals;
    fill(found.nearest, NO_SCORE);
#pragma unroll
    for (int part = 0; part < QUERY_FRAGMENTS; ++part) {
      PerLane<float, 4> scores[KEY_FRAGMENTS];
#pragma unroll
      for (int fragment = 0; fragment < KEY_FRAGMENTS; ++fragment) {
        EACH_LANE(lane) {
#pragma unroll
          for (int index = 0; index < 4; ++index) {
            scores[fragment](lane, index) = float_of_bits(static_cast<u32>(whole_scores[part][fragment](lane, index)));
          }
        }
      }
      if (Tiles::ARE_CHOSEN ? tile + 1 == given.key_tiles : is_last) {
        hide_beyond(scores, static_cast<int>(given.key_tokens - static_cast<s64>(tile) * KEY_TILE));
      }
      weigh<HEAD>(scores, found, scale, part, 0);
      weigh<HEAD>(scores, found, scale, part, 1);
      pack(probabilities[part], scores, totals, part);
    }
    shrink<HEAD>(found);
    EACH_LANE(lane) {
#pragma unroll
      for (int number = 0; number < ROWS; ++number) {
        found.total(lane, number) += found.share(lane, number) * static_cast<float>(totals(lane, number));
      }
    }

    // 4. Values, each with its probability. Then the next ones may come.
    arrived<1>();
    bool matters = true;
    if (Tiles::ARE_CHOSEN) {
      largest_of_warp(found.nearest);
      matters = found.nearest(0) >= -static_cast<float>(given.negligible);
    }
    if (matters) {
      add_values<HEAD>(found, probabilities, value_tile_bytes, value_scales);
    }
    all_here();
    if (!is_last) {
      copy_values<HEAD>(value_tile_bytes, value_scales, given, number, next);
    }
    close_copies();
    tile = next;
  }
  write<Element, HEAD>(found, given, batch, head, first);
}

} // namespace sage
