// Pictures to try things with, (n, 3) uint8 RGB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace salience::test {

using Bytes = std::vector<std::uint8_t>;

// All of one grey.
inline Bytes flat(std::size_t pixels, std::uint8_t level) { return Bytes(pixels * 3, level); }

// Reproducible and without structure.
inline Bytes noise(std::size_t pixels) {
  Bytes image(pixels * 3);
  std::uint32_t state = 1;
  for (auto& value : image) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<std::uint8_t>(state >> 24U);
  }
  return image;
}

}  // namespace salience::test
