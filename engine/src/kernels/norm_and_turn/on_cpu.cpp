// The kernel on the CPU: every row, one after the other. It is for tests and for small models.

#include "norm_and_turn.cuh"

namespace {

template <typename Element>
int each_row(const kernels::NormAndTurn& given) {
  for (kernels::s64 row = 0; row < given.rows; ++row) {
    kernels::norm_and_turn<Element>(given, row);
  }
  return 0;
}

} // namespace

// Elements by their numbers in `engine/src/kernels/element.rs`. 0, or 1 where there is no such one.
extern "C" int lowmem_norm_and_turn_on_cpu(int element, const void* given) {
  const auto& rows = *static_cast<const kernels::NormAndTurn*>(given);
  switch (element) {
    case 0:
      return each_row<float>(rows);
    case 1:
      return each_row<kernels::Bf16>(rows);
    case 2:
      return each_row<kernels::Fp16>(rows);
    default:
      return 1;
  }
}
