// The RMS norm of queries or keys over all their channels, and then the turn of each pair of channels by the token's place (3D RoPE), where they lie: each number is read from memory
// and written once. A warp has a token. Its second look at the token's numbers, and the weights and turns that it shares with others, come from the caches.
//
// y = x w / sqrt(mean(x^2) + eps), and of each pair (a, b) then (a cos - b sin, a sin + b cos), all in fp32 and rounded once.

#pragma once

#include "elements.cuh"

namespace kernels {

struct NormAndTurn {
  // `[rows, channels]`, and `[channels]`.
  void* numbers;
  const void* weight;
  // What each row is multiplied by, where that is known: some of the channels alone are here then. Else it is found.
  const float* scales;
  // `[tokens, head / 2, 2]`: cosine and sine of each pair. Row after row has the tokens of one video after the other.
  const float* turns;
  s64 rows;
  s64 tokens;
  s64 channels;
  s64 head;
  double eps;
};

template <typename Element>
KERNEL_FN void norm_and_turn(const NormAndTurn& given, s64 row) {
  Pair<Element>* numbers = reinterpret_cast<Pair<Element>*>(static_cast<Element*>(given.numbers) + row * given.channels);
  const Pair<Element>* weights = static_cast<const Pair<Element>*>(given.weight);
  const s64 pairs = given.channels / 2;
  const s64 head_pairs = given.head / 2;
  const float* turns = given.turns + row % given.tokens * given.head;

  // 1. The scale.
  PerLane<float, 1> scale;
  fill(scale, given.scales != nullptr ? given.scales[row] : 0.0f);
  if (given.scales == nullptr) {
    each_pair(pairs, [&](int lane, s64 place) {
      const Pair<Element> pair = numbers[place];
      const float a = to_float(pair.values[0]);
      const float b = to_float(pair.values[1]);
      scale(lane) += a * a + b * b;
    });
    sum_over_lanes<1, LANES>(scale);
    EACH_LANE(lane) {
      scale(lane) = 1 / square_root(scale(lane) / static_cast<float>(given.channels) + static_cast<float>(given.eps));
    }
  }

  // 2. Each pair.
  each_pair(pairs, [&](int lane, s64 place) {
    const Pair<Element> weight = weights[place];
    Pair<Element> pair = numbers[place];
    const float a = to_float(pair.values[0]) * scale(lane) * to_float(weight.values[0]);
    const float b = to_float(pair.values[1]) * scale(lane) * to_float(weight.values[1]);
    const float cosine = turns[place % head_pairs * 2];
    const float sine = turns[place % head_pairs * 2 + 1];
    set(pair.values[0], a * cosine - b * sine);
    set(pair.values[1], a * sine + b * cosine);
    numbers[place] = pair;
  });
}

} // namespace kernels
