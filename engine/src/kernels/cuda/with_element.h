// Which type of numbers a kernel on the CPU takes: Rust says it by its number in `engine/src/kernels/element.rs`.

#pragma once

#include "elements.cuh"

namespace kernels {

// Calls `run` with a value of that type; 0, or 1 where there is no such one.
template <typename Run>
int with_element(int element, const Run& run) {
  switch (element) {
    case 0:
      run(float{});
      return 0;
    case 1:
      run(Bf16{});
      return 0;
    case 2:
      run(Fp16{});
      return 0;
    default:
      return 1;
  }
}

} // namespace kernels
