#include "statistics.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>

namespace salience {
namespace {

constexpr std::size_t kBins = 256;
using Edges = std::array<double, kBins + 1>;
using Bins = std::array<double, kBins>;
using Counts = std::array<float, kBins>;

// Spans below this are rounding: LAB units, square pixels and saliency that mean anything are far larger.
constexpr double kNothing = 1e-6;

double sum_in_order(std::span<const double> values, double first) {
  for (const double value : values) first += value;
  return first;
}

// Eight sums side by side.
double block_sum(std::span<const double> values) {
  std::array<double, 8> sums{};
  std::copy_n(values.begin(), 8, sums.begin());
  std::size_t i = 8;
  for (; i + 8 <= values.size(); i += 8) {
    for (std::size_t k = 0; k < 8; ++k) sums[k] += values[i + k];
  }
  const double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  return sum_in_order(values.subspan(i), sum);
}

Edges equal_bins(double low, double high) {
  const double width = (high - low) / static_cast<double>(kBins);
  Edges edges{};
  for (std::size_t i = 0; i < kBins; ++i) edges[i] = static_cast<double>(i) * width + low;
  edges[kBins] = high;
  return edges;
}

// The bin of a value between the first edge and the last; the division may miss it by one.
std::size_t bin_of(double value, const Edges& edges) {
  const double share = (value - edges[0]) / (edges[kBins] - edges[0]);
  std::size_t bin = std::min(static_cast<std::size_t>(share * static_cast<double>(kBins)), kBins - 1);
  if (value < edges[bin]) --bin;
  if (value >= edges[bin + 1] && bin != kBins - 1) ++bin;
  return bin;
}

Counts histogram(std::span<const double> values, const Edges& edges) {
  std::array<std::size_t, kBins> whole{};
  for (const double value : values) ++whole[bin_of(value, edges)];
  Counts counts{};
  std::ranges::transform(whole, counts.begin(), [](std::size_t count) { return static_cast<float>(count); });
  return counts;
}

// The pixels, and their mean, in the bins up to each.
struct RunningClass {
  Counts pixels{};
  Bins means{};
};

RunningClass running_class(const Counts& counts, const Bins& centres) {
  RunningClass found;
  float pixels = 0;
  double sum = 0;
  for (std::size_t i = 0; i < kBins; ++i) {
    pixels += counts[i];
    sum += static_cast<double>(counts[i]) * centres[i];
    found.pixels[i] = pixels;
    found.means[i] = sum / static_cast<double>(pixels);
  }
  return found;
}

RunningClass running_class_from_end(Counts counts, Bins centres) {
  std::ranges::reverse(counts);
  std::ranges::reverse(centres);
  RunningClass found = running_class(counts, centres);
  std::ranges::reverse(found.pixels);
  std::ranges::reverse(found.means);
  return found;
}

// The bin after which a split makes the variance between the classes largest.
std::size_t best_split(const Counts& counts, const Bins& centres) {
  const RunningClass weak = running_class(counts, centres);
  const RunningClass strong = running_class_from_end(counts, centres);
  std::size_t best = 0;
  double largest = -1;
  for (std::size_t i = 0; i + 1 < kBins; ++i) {
    const double distance = weak.means[i] - strong.means[i + 1];
    const double variance = static_cast<double>(weak.pixels[i] * strong.pixels[i + 1]) * (distance * distance);
    if (variance > largest) {
      largest = variance;
      best = i;
    }
  }
  return best;
}

}  // namespace

double pairwise_sum(std::span<const double> values) {
  if (values.size() < 8) return sum_in_order(values, 0.0);
  if (values.size() <= 128) return block_sum(values);
  std::size_t half = values.size() / 2;
  half -= half % 8;
  return pairwise_sum(values.first(half)) + pairwise_sum(values.subspan(half));
}

double mean(std::span<const double> values) { return pairwise_sum(values) / static_cast<double>(values.size()); }

double otsu_threshold(std::span<const double> values) {
  const auto [low, high] = std::ranges::minmax(values);
  const Edges edges = equal_bins(low, high);
  if (std::ranges::adjacent_find(edges, std::greater_equal<>{}) != edges.end()) return values.front();
  Bins centres{};
  for (std::size_t i = 0; i < kBins; ++i) centres[i] = (edges[i] + edges[i + 1]) / 2.0;
  return centres[best_split(histogram(values, edges), centres)];
}

std::vector<double> unit(std::span<const double> values) {
  const auto [low, high] = std::ranges::minmax(values);
  std::vector<double> stretched(values.size());
  const double span = high - low;
  if (!(span > kNothing)) return stretched;
  std::ranges::transform(values, stretched.begin(), [=, smallest = low](double v) { return (v - smallest) / span; });
  return stretched;
}

}  // namespace salience
