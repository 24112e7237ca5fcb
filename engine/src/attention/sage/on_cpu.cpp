// The kernels on the CPU: every block of a grid, warp by warp (see `turns.h`). It is for tests and for small models; a core takes a second for what a GPU does in microseconds.

#include "blocks.cuh"
#include "with_element.h"

#include <cstdint>

namespace {

using namespace sage;

struct Grid {
  s64 x;
  s64 y;
  s64 z;
};

// A block's shared memory, in which it finds nothing of use.
struct Shared {
  u8* bytes;
  std::size_t count;
};

template <typename Body>
void each_warp(const Grid& grid, const Body& body, Shared shared = {}) {
  for (s64 z = 0; z < grid.z; ++z) {
    for (s64 y = 0; y < grid.y; ++y) {
      for (s64 x = 0; x < grid.x; ++x) {
        std::fill_n(shared.bytes, shared.count, u8{0xff});
        each_warp_of_block([&](int warp) { body(Place{x, y, z, warp}); });
      }
    }
  }
}

template <typename Element, int HEAD, typename Tiles>
void attend_each(const void* given, const Grid& grid) {
  alignas(128) u8 shared[SHARED_BYTES<HEAD>];
  const auto attend = [&](const Place& place) { attention_of_warp<Element, HEAD, Tiles>(*static_cast<const Attention*>(given), place, shared); };
  each_warp(grid, attend, {shared, sizeof shared});
}

// The kernels by their numbers in `engine/src/kernels/sage.rs`.
template <typename Element, int HEAD>
int run_kernel(int kernel, const void* given, const Grid& grid) {
  switch (kernel) {
    case 0:
      each_warp(grid, [&](const Place& place) { keys_of_warp<Element, HEAD>(*static_cast<const Keys*>(given), place); });
      return 0;
    case 1:
      each_warp(grid, [&](const Place& place) { values_of_warp<Element, HEAD>(*static_cast<const Values*>(given), place); });
      return 0;
    case 2:
      attend_each<Element, HEAD, AllTiles>(given, grid);
      return 0;
    case 3:
      each_warp(grid, [&](const Place& place) { means_of_warp<Element, HEAD>(*static_cast<const Means*>(given), place); });
      return 0;
    case 4: {
      float shared[WARPS * HEAD];
      const auto choose = [&](const Place& place) { choice_of_warp<Element, HEAD>(*static_cast<const Choice*>(given), place, shared); };
      each_warp(grid, choose, {reinterpret_cast<u8*>(shared), sizeof shared});
      return 0;
    }
    case 5:
      attend_each<Element, HEAD, ChosenTiles>(given, grid);
      return 0;
    default:
      return 1;
  }
}

template <typename Element>
int with_head(int head, int kernel, const void* given, const Grid& grid) {
  return head == 64 ? run_kernel<Element, 64>(kernel, given, grid) : head == 128 ? run_kernel<Element, 128>(kernel, given, grid) : 1;
}

} // namespace

// `given` is what the kernel takes. 0, or 1 where there is no such kernel.
extern "C" int lowmem_sage_on_cpu(int element, int head, int kernel, const void* given, int64_t x, int64_t y, int64_t z) {
  const Grid grid{x, y, z};
  int answer = 1;
  kernels::with_element(element, [&](auto number) { answer = with_head<decltype(number)>(head, kernel, given, grid); });
  return answer;
}

// What warps of this thread's blocks do from now on: whole, one after the other; or in turns, in that order and with copies that arrive so.
extern "C" void lowmem_order_of_warps(bool in_turns, bool from_last, bool copies_late) {
  kernels::order_of_warps = {in_turns, from_last, copies_late};
}
