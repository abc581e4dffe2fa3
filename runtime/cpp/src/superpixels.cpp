#include "superpixels.hpp"

#include <algorithm>
#include <string>

#include "checks.hpp"
#include "salience/errors.hpp"
#include "slic.hpp"

namespace salience {
namespace {

// The mean of value(pixel) over each of n superpixels.
template <typename Value>
std::vector<double> means_of(const std::vector<std::int32_t>& labels, std::size_t count, Value value) {
  std::vector<double> sums(count);
  std::vector<std::size_t> pixels(count);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto label = static_cast<std::size_t>(labels[i]);
    sums[label] += value(i);
    ++pixels[label];
  }
  for (std::size_t i = 0; i < count; ++i) sums[i] /= static_cast<double>(pixels[i]);
  return sums;
}

// Values (n,) into one column of rows (n, Columns).
template <std::size_t Columns>
void set_column(std::vector<std::array<double, Columns>>& rows, std::size_t column, const std::vector<double>& values) {
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i][column] = values[i];
}

}  // namespace

std::vector<double> Superpixels::means(std::span<const float> values) const {
  if (values.size() != labels.size()) {
    throw Error("superpixels: got " + std::to_string(values.size()) + " values to average, expected one for each of " +
                std::to_string(labels.size()) + " pixels; give a map of the picture's size.");
  }
  return means_of(labels, count(), [&](std::size_t i) { return static_cast<double>(values[i]); });
}

std::vector<float> Superpixels::paint(std::span<const double> values) const {
  if (values.size() != count()) {
    throw Error("superpixels: got " + std::to_string(values.size()) + " values to paint with, expected " +
                std::to_string(count()) + "; give one for each superpixel.");
  }
  std::vector<float> painted(labels.size());
  const auto value_of = [&](std::int32_t label) { return static_cast<float>(values[static_cast<std::size_t>(label)]); };
  std::ranges::transform(labels, painted.begin(), value_of);
  return painted;
}

Superpixels segment(std::span<const std::uint8_t> image, std::size_t height, std::size_t width, int count,
                    double compactness) {
  check_map_size("superpixels' picture", image.size(), 3, height, width);
  check_number("superpixels", count, {.least = 1});
  check_number("compactness", compactness, {.above = 0});
  Superpixels found;
  found.labels = slic(image, height, width, static_cast<std::size_t>(count), compactness);
  const auto superpixels = static_cast<std::size_t>(*std::ranges::max_element(found.labels)) + 1;
  found.colours.resize(superpixels);
  found.positions.resize(superpixels);
  const LabPlanes lab = lab_from_rgb(image);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const auto colour = [&](std::size_t i) { return lab[channel][i]; };
    set_column(found.colours, channel, means_of(found.labels, superpixels, colour));
  }
  const auto row = [&](std::size_t i) { return static_cast<double>(i / width); };
  const auto column = [&](std::size_t i) { return static_cast<double>(i % width); };
  set_column(found.positions, 0, means_of(found.labels, superpixels, row));
  set_column(found.positions, 1, means_of(found.labels, superpixels, column));
  return found;
}

}  // namespace salience
