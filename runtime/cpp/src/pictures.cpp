#include "pictures.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>

#include "text.hpp"

namespace salience {
namespace {

// What rounding may overshoot; another scale is not guessed at.
constexpr float kTolerance = 1e-3f;

std::string megapixels(double pixels) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f", pixels / 1e6);
  return text;
}

void check_size(const std::string& subject, std::size_t height, std::size_t width, std::size_t max_pixels) {
  if (width <= max_pixels / height) return;
  const double pixels = static_cast<double>(height) * static_cast<double>(width);
  throw ImageError(subject + ": " + std::to_string(width) + " x " + std::to_string(height) + " is " +
                   megapixels(pixels) + " megapixels, the limit is " + megapixels(static_cast<double>(max_pixels)) +
                   "; scale it down or raise max_pixels.");
}

std::string sides(std::size_t height, std::size_t width) {
  return std::to_string(height) + ", " + std::to_string(width);
}

struct Range {
  float low;
  float high;
};

// NaN where any value is.
Range range_of(std::span<const float> values) {
  Range range{values[0], values[0]};
  for (const float value : values) {
    if (std::isnan(value)) return {value, value};
    range.low = std::min(range.low, value);
    range.high = std::max(range.high, value);
  }
  return range;
}

}  // namespace

void check(const Image& image, std::size_t max_pixels) {
  if (!image.data) throw ImageError("image array: data is null, expected (H, W, 3) uint8; give it pixels.");
  if (image.height == 0 || image.width == 0) {
    throw ImageError("image array of shape (" + sides(image.height, image.width) +
                     ", 3): expected (H, W, 3), not empty.");
  }
  check_size("image array", image.height, image.width, max_pixels);
  constexpr std::size_t most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());
  const std::size_t row = 3 * image.width;
  if (image.row_bytes != 0 && (image.row_bytes < row || image.row_bytes > most / image.height)) {
    throw ImageError("image array with rows " + std::to_string(image.row_bytes) + " bytes apart: expected 3 * width, " +
                     std::to_string(row) + ", or more that fit in memory; 0 stands for " + std::to_string(row) + ".");
  }
}

const std::uint8_t* packed(const Image& image, std::vector<std::uint8_t>& storage) {
  const std::size_t row = 3 * image.width;
  if (image.row_bytes == 0 || image.row_bytes == row) return image.data;
  storage.resize(row * image.height);
  for (std::size_t y = 0; y < image.height; ++y) {
    std::memcpy(storage.data() + y * row, image.data + y * image.row_bytes, row);
  }
  return storage.data();
}

std::vector<float> checked_values(const Prior& prior, std::size_t max_pixels) {
  if (!prior.data) throw ImageError("map array: data is null, expected (H, W) float32; give it values.");
  if (prior.height == 0 || prior.width == 0) {
    throw ImageError("map array of shape (" + sides(prior.height, prior.width) + "): expected (H, W), not empty.");
  }
  check_size("map array", prior.height, prior.width, max_pixels);
  const std::span<const float> values(prior.data, prior.height * prior.width);
  const auto [low, high] = range_of(values);
  if (!(low >= -kTolerance && high <= 1 + kTolerance)) {
    throw ImageError("map array of float32: holds values from " + general(static_cast<double>(low)) + " to " +
                     general(static_cast<double>(high)) +
                     ", expected [0, 1]; divide it by its maximum, or mend what made NaN.");
  }
  std::vector<float> clipped(values.begin(), values.end());
  for (float& value : clipped) value = std::clamp(value, 0.0f, 1.0f);
  return clipped;
}

void require_regions(std::span<const float> values) {
  const auto [low, high] = range_of(values);
  if (high > 0 && low < 1) return;
  throw ImageError("prior: is " + general(static_cast<double>(high)) +
                   " everywhere, expected an object and a background; give another prior, or keep such priors as they "
                   "are: empty='keep', or --empty keep.");
}

}  // namespace salience
