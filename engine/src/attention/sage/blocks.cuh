// What a warp of a block computes, by the block's place in its grid: the same for the GPU, which has the kernels of `sage.cu`, and for the CPU, which has loops.

#pragma once

#include "choose.cuh"

namespace sage {

// A block's place, and the warp in it. In all grids y counts heads and z videos.
struct Place {
  s64 x;
  s64 y;
  s64 z;
  int warp;
};

// x counts tiles of keys, one a warp.
template <typename Element, int HEAD>
KERNEL_FN void keys_of_warp(const Keys& given, const Place& place) {
  const s64 tile = place.x * WARPS + place.warp;
  if (tile < given.tiles) {
    quantise_keys<Element, HEAD>(given, place.z, place.y, tile);
  }
}

// x counts tiles of keys and, within them, eight channels, one a warp.
template <typename Element, int HEAD>
KERNEL_FN void values_of_warp(const Values& given, const Place& place) {
  constexpr int EIGHTS = HEAD / 8;
  const s64 number = place.x * WARPS + place.warp;
  const s64 tile = number / EIGHTS;
  if (tile < given.tiles) {
    quantise_values<Element, HEAD>(given, place.z, place.y, tile, static_cast<int>(number % EIGHTS) * 8);
  }
}

// x counts tiles of queries, one a block.
template <typename Element, int HEAD, typename Tiles>
KERNEL_FN void attention_of_warp(const Attention& given, const Place& place, u8* shared) {
  attend<Element, HEAD, Tiles>(given, shared, place.z, place.y, place.x, place.warp);
}

// x counts tiles of keys, one a warp.
template <typename Element, int HEAD>
KERNEL_FN void means_of_warp(const Means& given, const Place& place) {
  const s64 tile = place.x * WARPS + place.warp;
  if (tile < given.tiles) {
    pool_keys<Element, HEAD>(given, place.z, place.y, tile);
  }
}

// x counts tiles of queries, one a warp. `shared` has `WARPS * HEAD` floats.
template <typename Element, int HEAD>
KERNEL_FN void choice_of_warp(const Choice& given, const Place& place, float* shared) {
  const s64 tile = place.x * WARPS + place.warp;
  if (tile * QUERY_TILE < given.query_tokens) {
    choose<Element, HEAD>(given, shared + place.warp * HEAD, place.z, place.y, tile);
  }
}

} // namespace sage
