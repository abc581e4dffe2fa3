// sRGB to CIE LAB (D65, observer of 2 degrees) in float64, with the constants and the order of arithmetic of
// scikit-image's `rgb2lab`, so that superpixels come out the same in C++ and in Python.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace salience {

// L in [0, 100], a and b about -110 to 110.
using Lab = std::array<double, 3>;
// L, a and b of every pixel, a plane each.
using LabPlanes = std::array<std::vector<double>, 3>;

// LAB of one colour, RGB in [0, 1].
Lab lab_from_rgb(const std::array<double, 3>& colour);

// LAB of a picture (n, 3) uint8 RGB: three planes (n,).
LabPlanes lab_from_rgb(std::span<const std::uint8_t> image);

// The same of the picture stretched to [0, 1] by its smallest and largest level, all channels alike.
LabPlanes lab_from_stretched_rgb(std::span<const std::uint8_t> image);

}  // namespace salience
