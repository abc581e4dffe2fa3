// The box around the connected components of a mask that are large enough.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "salience/salience.hpp"

namespace salience {

// The box around the 8-connected components of a mask (H, W), not empty, of at least `least_share` of the largest
// component's area; none where the mask is 0 everywhere. Equal to box_of_components in runtime/components.py.
std::optional<Box> box_of_components(std::span<const std::uint8_t> mask, std::size_t width, double least_share);

}  // namespace salience
