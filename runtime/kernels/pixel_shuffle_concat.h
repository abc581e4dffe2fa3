// Pixel-shuffle of several levels, written once, straight into their concatenation (Learning to Promote Saliency
// Detectors, section 3.3); the operator `salience::SubpixelConcat`.
#pragma once

#include <cstdint>

#include "threads.h"

namespace salience::kernels {

// joined[n, k * channels + c, y, x] = maps[k][n, (c * s + y % s) * s + x % s, y / s, x / s] with s = strides[k].
//
// maps:    `levels` tensors (batch, channels * s * s, height / s, width / s), 1 to `most_levels`
// strides: each divides height and width
// joined:  (batch, levels * channels, height, width), written; none of the maps
//
// All contiguous; `Value` is any type of that size, such as float or std::uint16_t for half precision.
template <typename Value>
struct PixelShuffleConcat {
  static constexpr std::int64_t most_levels = 8;

  const Value* maps[most_levels];
  std::int64_t strides[most_levels];
  Value* joined;
  std::int64_t batch, levels, channels, height, width;
};

}  // namespace salience::kernels
