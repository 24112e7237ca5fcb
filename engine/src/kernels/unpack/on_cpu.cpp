// The kernel on the CPU: every number from one to another, one after the other.

#include "with_element.h"
#include "unpack.cuh"

// The eighths from `first` to before `last`.
extern "C" int lowmem_unpack_on_cpu(int element, const void* given, kernels::s64 first, kernels::s64 last) {
  const auto& numbers = *static_cast<const kernels::Unpack*>(given);
  return kernels::with_element(element, [&](auto number) {
    for (kernels::s64 place = first; place < last; ++place) {
      kernels::unpack<decltype(number)>(numbers, place);
    }
  });
}
