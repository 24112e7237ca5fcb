// The layer norm of tokens over all their channels, with scale and shift, where a vector may still have to be added to each token: each number is read from memory and written once. A warp
// has a token. Its second and third look at the token's numbers, and the vectors that it shares with others, come from the caches.
//
// x = hidden + left, y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) (offset + scale) + shift, all in fp32 and rounded once.

#pragma once

#include "rows.cuh"

namespace kernels {

struct LayerNorm {
  // `[videos, tokens, channels]`, as `rows` says.
  const void* hidden;
  // `[channels]`, or missing.
  const void* left;
  // `[channels]` both.
  const float* scale;
  const float* shift;
  // `[rows, channels]`.
  void* normed;
  Rows rows;
  double offset;
  double eps;
};

// Two numbers of a token, with what is left to be added.
template <typename Element>
KERNEL_FN Pair<float> with_left(const Pair<Element>* hidden, const Pair<Element>* left, s64 place) {
  const Pair<Element> x = hidden[place];
  Pair<float> sum{{to_float(x.values[0]), to_float(x.values[1])}};
  if (left != nullptr) {
    const Pair<Element> more = left[place];
    sum.values[0] += to_float(more.values[0]);
    sum.values[1] += to_float(more.values[1]);
  }
  return sum;
}

template <typename Element>
KERNEL_FN void layer_norm(const LayerNorm& given, s64 row) {
  const Element* token = static_cast<const Element*>(given.hidden) + given.rows.first_number(row);
  const Pair<Element>* hidden = reinterpret_cast<const Pair<Element>*>(token);
  const Pair<Element>* left = static_cast<const Pair<Element>*>(given.left);
  const Pair<float>* scales = reinterpret_cast<const Pair<float>*>(given.scale);
  const Pair<float>* shifts = reinterpret_cast<const Pair<float>*>(given.shift);
  Pair<Element>* normed = reinterpret_cast<Pair<Element>*>(static_cast<Element*>(given.normed) + row * given.rows.channels);
  const s64 pairs = given.rows.channels / 2;
  const float channels = static_cast<float>(given.rows.channels);
  const float offset = static_cast<float>(given.offset);

  // 1. The mean.
  PerLane<float, 1> mean;
  fill(mean, 0.0f);
  each_pair(pairs, [&](int lane, s64 place) {
    const Pair<float> x = with_left(hidden, left, place);
    mean(lane) += x.values[0] + x.values[1];
  });
  sum_over_lanes<1, LANES>(mean);
  EACH_LANE(lane) {
    mean(lane) = mean(lane) / channels;
  }

  // 2. What the rest is multiplied by.
  PerLane<float, 1> factor;
  fill(factor, 0.0f);
  each_pair(pairs, [&](int lane, s64 place) {
    const Pair<float> x = with_left(hidden, left, place);
    const float a = x.values[0] - mean(lane);
    const float b = x.values[1] - mean(lane);
    factor(lane) += a * a + b * b;
  });
  sum_over_lanes<1, LANES>(factor);
  EACH_LANE(lane) {
    factor(lane) = 1 / square_root(factor(lane) / channels + static_cast<float>(given.eps));
  }

  // 3. The norm.
  each_pair(pairs, [&](int lane, s64 place) {
    const Pair<float> x = with_left(hidden, left, place);
    const Pair<float> scale = scales[place];
    const Pair<float> shift = shifts[place];
    Pair<Element> y;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const float norm = (x.values[which] - mean(lane)) * factor(lane);
      set(y.values[which], norm * (offset + scale.values[which]) + shift.values[which]);
    }
    normed[place] = y;
  });
}

} // namespace kernels
