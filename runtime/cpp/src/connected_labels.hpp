// The last step of SLIC: superpixels in one piece, none of them tiny.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace salience {

// In pixels: components below `least` join a neighbour, and those above `most`, at least 2, are taken apart.
struct ComponentSizes {
  std::size_t least;
  std::size_t most;
};

// The 4-connected components of labels (height, width), numbered 0 to n - 1 in reading order; each has a pixel.
//
// A small component takes the number of the neighbour met last, or its own if it met none.
std::vector<std::int32_t> connected_labels(std::span<const std::int32_t> labels, std::size_t height,
                                           std::size_t width, ComponentSizes sizes);

}  // namespace salience
