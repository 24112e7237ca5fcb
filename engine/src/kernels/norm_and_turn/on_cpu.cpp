// The kernel on the CPU: every row, one after the other. It is for tests and for small models.

#include "with_element.h"
#include "norm_and_turn.cuh"

extern "C" int lowmem_norm_and_turn_on_cpu(int element, const void* given) {
  const auto& rows = *static_cast<const kernels::NormAndTurn*>(given);
  return kernels::with_element(element, [&](auto number) {
    for (kernels::s64 row = 0; row < rows.rows; ++row) {
      kernels::norm_and_turn<decltype(number)>(rows, row);
    }
  });
}
