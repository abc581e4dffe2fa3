// Checks of what callers hand in, before any memory is taken for it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "salience/salience.hpp"

namespace salience {

// A bound for `max_pixels`, so that no size in bytes overflows.
inline constexpr std::size_t kMostPixels = std::size_t{1} << 40;

// Throws ImageError where the picture is empty, its rows overlap, or it is larger than allowed.
void check(const Image& image, std::size_t max_pixels);

// The rows of a checked picture without what lies between them: its own memory, or that of `storage`, filled.
const std::uint8_t* packed(const Image& image, std::vector<std::uint8_t>& storage);

// The values of a prior, what rounding overshoots [0, 1] clipped. Throws ImageError where it is empty, larger than
// allowed, or holds NaN or values outside of [0, 1].
std::vector<float> checked_values(const Prior& prior, std::size_t max_pixels);

// Throws ImageError if values of a prior name no object or no background.
void require_regions(std::span<const float> values);

}  // namespace salience
