// The tokens of a hidden state, some of all of several videos, as kernels find them: a row each.

#pragma once

#include "elements.cuh"

namespace kernels {

struct Rows {
  s64 rows;
  // Of one video: row after row has the tokens of one video after the other.
  s64 tokens;
  // A token's channels lie side by side, and so do the tokens of a video; videos begin so many numbers apart.
  s64 next_video;
  s64 channels;

  // Where the row begins, in numbers.
  KERNEL_FN s64 first_number(s64 row) const {
    return row / tokens * next_video + row % tokens * channels;
  }
};

} // namespace kernels
