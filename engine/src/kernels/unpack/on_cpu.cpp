// The kernel on the CPU: every number from one to another, one after the other.

#include "unpack.cuh"

#include <cstdint>

namespace {

template <typename Element>
int each_eight(const kernels::Unpack& given, int64_t first, int64_t last) {
  for (int64_t place = first; place < last; ++place) {
    kernels::unpack<Element>(given, place);
  }
  return 0;
}

} // namespace

// The eighths from `first` to before `last`; elements by their numbers in `engine/src/kernels/element.rs`. 0, or 1 where there is no such one.
extern "C" int lowmem_unpack_on_cpu(int element, const void* given, int64_t first, int64_t last) {
  const auto& numbers = *static_cast<const kernels::Unpack*>(given);
  switch (element) {
    case 0:
      return each_eight<float>(numbers, first, last);
    case 1:
      return each_eight<kernels::Bf16>(numbers, first, last);
    case 2:
      return each_eight<kernels::Fp16>(numbers, first, last);
    default:
      return 1;
  }
}
