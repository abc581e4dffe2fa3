// Simple linear iterative clustering (Achanta et al., 2012): labels identical to those of scikit-image's `slic` with
// its defaults, which is why the grid, the order of every sum, ties and the walk of the last step are as they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace salience {

// Labels (height, width) of about `count` connected superpixels, 0 to n - 1, each of which has a pixel.
//
// image: (height, width, 3) uint8 RGB, not empty. compactness: how far shape prevails over colour, above 0.
// Throws Error if distances overflow, because compactness is next to 0.
std::vector<std::int32_t> slic(std::span<const std::uint8_t> image, std::size_t height, std::size_t width,
                               std::size_t count, double compactness);

}  // namespace salience
