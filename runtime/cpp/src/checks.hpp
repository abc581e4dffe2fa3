// Checks of what comes from outside, with messages that are those of the Python package.
#pragma once

#include <cstddef>
#include <limits>
#include <string_view>

namespace salience {

// The longest side of a map, in pixels.
inline constexpr std::size_t kLongestSide = 8192;

struct Bounds {
  double least = -std::numeric_limits<double>::infinity();
  double above = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  double below = std::numeric_limits<double>::infinity();
};

// Throws Error unless the number is finite and in bounds.
void check_number(std::string_view name, double value, const Bounds& bounds);
void check_number(std::string_view name, int value, const Bounds& bounds);

// Throws Error unless the sides are 1 to kLongestSide and `got` values are `channels` x height x width.
void check_map_size(std::string_view subject, std::size_t got, std::size_t channels, std::size_t height,
                    std::size_t width);

}  // namespace salience
