// The bundle that tests serve.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <vector>

namespace salience::test {

inline std::filesystem::path bundle_of_test() {
  const char* path = std::getenv("SALIENCE_TEST_BUNDLE");
  if (!path) throw std::runtime_error("SALIENCE_TEST_BUNDLE is not set, expected the folder of a bundle of multis");
  return path;
}

// (height, width, 3): a bright disc on a dark slope.
inline std::vector<std::uint8_t> scene(std::size_t height, std::size_t width) {
  std::vector<std::uint8_t> pixels;
  for (std::size_t y = 0; y < height; ++y) {
    for (std::size_t x = 0; x < width; ++x) {
      const double row = static_cast<double>(y) / static_cast<double>(height) - 0.5;
      const double column = static_cast<double>(x) / static_cast<double>(width) - 0.5;
      const bool inside = row * row + column * column < 0.06;
      const auto shade = static_cast<std::uint8_t>(60 + 80 * (column + 0.5));
      for (const std::uint8_t value : {inside ? std::uint8_t{230} : shade, shade, std::uint8_t{90}}) {
        pixels.push_back(value);
      }
    }
  }
  return pixels;
}

}  // namespace salience::test
