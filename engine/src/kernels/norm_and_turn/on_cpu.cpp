// The kernel on the CPU: one row after the other. It is for tests and for small models.

#include "norm_and_turn.cuh"
#include "with_element.h"

extern "C" int lowmem_norm_and_turn_on_cpu(int element, const void* given, kernels::s64 first, kernels::s64 last) {
  const auto& all = *static_cast<const kernels::NormAndTurn*>(given);
  return kernels::with_element(element, [&](auto number) {
    for (kernels::s64 row = first; row < last; ++row) {
      kernels::norm_and_turn<decltype(number)>(all, row);
    }
  });
}
