#include "colour.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace salience {
namespace {

using Rgb = std::array<double, 3>;
using Levels = std::array<double, 256>;

// IEC 61966-2-1 to CIE XYZ, and the white of D65.
constexpr std::array<Rgb, 3> kXyzFromRgb = {
    {{0.412453, 0.357580, 0.180423}, {0.212671, 0.715160, 0.072169}, {0.019334, 0.119193, 0.950227}}};
constexpr std::array<double, 3> kWhite = {0.95047, 1.0, 1.08883};

double linear_from_srgb(double value) {
  return value > 0.04045 ? std::pow((value + 0.055) / 1.055, 2.4) : value / 12.92;
}

double lightness_response(double value) {
  return value > 0.008856 ? std::cbrt(value) : 7.787 * value + 16.0 / 116.0;
}

Lab lab_from_linear(const Rgb& linear) {
  std::array<double, 3> response{};
  for (std::size_t i = 0; i < 3; ++i) {
    const Rgb& row = kXyzFromRgb[i];
    const double sum = linear[0] * row[0] + linear[1] * row[1] + linear[2] * row[2];
    response[i] = lightness_response(sum / kWhite[i]);
  }
  const auto [x, y, z] = response;
  return {116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)};
}

// What each of the 256 levels is in [0, 1].
Levels unit_levels() {
  Levels levels{};
  for (std::size_t i = 0; i < levels.size(); ++i) levels[i] = static_cast<double>(i) * (1.0 / 255.0);
  return levels;
}

// A picture has few levels and many pixels, so the power is taken once for each level.
LabPlanes lab_of_levels(std::span<const std::uint8_t> image, Levels levels) {
  std::transform(levels.begin(), levels.end(), levels.begin(), linear_from_srgb);
  const std::size_t pixels = image.size() / 3;
  LabPlanes planes;
  for (auto& plane : planes) plane.resize(pixels);
  for (std::size_t i = 0; i < pixels; ++i) {
    const auto pixel = image.subspan(3 * i, 3);
    const Lab lab = lab_from_linear({levels[pixel[0]], levels[pixel[1]], levels[pixel[2]]});
    for (std::size_t channel = 0; channel < 3; ++channel) planes[channel][i] = lab[channel];
  }
  return planes;
}

}  // namespace

Lab lab_from_rgb(const Rgb& colour) {
  return lab_from_linear({linear_from_srgb(colour[0]), linear_from_srgb(colour[1]), linear_from_srgb(colour[2])});
}

LabPlanes lab_from_rgb(std::span<const std::uint8_t> image) { return lab_of_levels(image, unit_levels()); }

LabPlanes lab_from_stretched_rgb(std::span<const std::uint8_t> image) {
  Levels levels = unit_levels();
  if (image.empty()) return {};
  const auto [darkest, brightest] = std::minmax_element(image.begin(), image.end());
  const double low = levels[*darkest];
  const double span = levels[*brightest] - low;
  for (double& level : levels) level = span > 0 ? (level - low) / span : level - low;
  return lab_of_levels(image, levels);
}

}  // namespace salience
