// Superpixels of a picture, with what the low-level map needs of each.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "colour.hpp"

namespace salience {

// The n superpixels of a picture of h x w pixels.
struct Superpixels {
  // (h, w): the superpixel of every pixel, 0 to n - 1; each has a pixel.
  std::vector<std::int32_t> labels;
  // (n, 3): mean LAB colour.
  std::vector<Lab> colours;
  // (n, 2): mean row and column in pixels.
  std::vector<std::array<double, 2>> positions;

  std::size_t count() const { return colours.size(); }

  // The mean of `values` (h, w) over each superpixel, (n,); Clamped descent, eq. 4. Throws Error on another size.
  std::vector<double> means(std::span<const float> values) const;

  // (h, w): every pixel has the value of its superpixel; `values` is (n,). Throws Error on another size.
  std::vector<float> paint(std::span<const double> values) const;
};

// About `count` SLIC superpixels of a picture (height, width, 3) uint8 RGB; compactness is how far shape prevails over
// colour. Throws Error if the picture has another size or one that `check_map_size` refuses, or a parameter is not
// above 0.
Superpixels segment(std::span<const std::uint8_t> image, std::size_t height, std::size_t width, int count,
                    double compactness);

}  // namespace salience
