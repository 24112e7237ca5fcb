// What a part of a block gives, times its gate, is added to the hidden state, and with it a vector that was still to be added to each token: the hidden state is read and written once.
// A warp has a token.
//
// hidden = hidden + gate part + left, in fp32 and rounded once.

#pragma once

#include "rows.cuh"

namespace kernels {

struct GateAndResidual {
  // `[videos, tokens, channels]`, as `rows` says.
  void* hidden;
  // `[channels]` both; gates are in fp32.
  const void* left;
  const float* gate;
  // `[rows, channels]`.
  const void* part;
  Rows rows;
};

template <typename Element>
KERNEL_FN void gate_and_residual(const GateAndResidual& given, s64 row) {
  const s64 first_number = given.rows.first_number(row);
  Pair<Element>* hidden = reinterpret_cast<Pair<Element>*>(static_cast<Element*>(given.hidden) + first_number);
  const Pair<Element>* parts = reinterpret_cast<const Pair<Element>*>(static_cast<const Element*>(given.part) + row * given.rows.channels);
  const Pair<Element>* left = static_cast<const Pair<Element>*>(given.left);
  const Pair<float>* gates = reinterpret_cast<const Pair<float>*>(given.gate);
  each_pair(given.rows.channels / 2, [&](int, s64 place) {
    const Pair<Element> part = parts[place];
    Pair<Element> x = hidden[place];
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const float gated = gates[place].values[which] * to_float(part.values[which]);
      set(x.values[which], to_float(x.values[which]) + (gated + to_float(left[place].values[which])));
    }
    hidden[place] = x;
  });
}

} // namespace kernels
