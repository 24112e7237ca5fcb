// The kernel on the CPU: eight numbers after eight.

#include "with_element.h"
#include "unpack.cuh"

extern "C" int lowmem_unpack_on_cpu(int element, const void* given, kernels::s64 first, kernels::s64 last) {
  const auto& numbers = *static_cast<const kernels::Unpack*>(given);
  return kernels::with_element(element, [&](auto number) {
    for (kernels::s64 place = first; place < last; ++place) {
      kernels::unpack<decltype(number)>(numbers, place);
    }
  });
}
