#include "low_level.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "checks.hpp"
#include "salience/errors.hpp"
#include "statistics.hpp"

namespace salience {
namespace {

// k of exp(-k norm(V)); Saliency filters (Perazzi et al.), where the spread comes from, takes 6.
constexpr double kSpreadWeight = 3.0;
constexpr std::size_t kMostSuperpixels = 8192;

using Position = std::array<double, 2>;

double dot(std::span<const double> left, std::span<const double> right) {
  double sum = 0;
  for (std::size_t i = 0; i < left.size(); ++i) sum += left[i] * right[i];
  return sum;
}

// d_ij = |C_i - C_j|.
SquareMatrix distances_of(std::span<const Lab> colours) {
  const std::size_t side = colours.size();
  SquareMatrix distances{side, std::vector<double>(side * side)};
  for (std::size_t i = 0; i < side; ++i) {
    for (std::size_t j = 0; j < side; ++j) {
      const double l = colours[i][0] - colours[j][0];
      const double a = colours[i][1] - colours[j][1];
      const double b = colours[i][2] - colours[j][2];
      distances.values[i * side + j] = std::sqrt(l * l + a * a + b * b);
    }
  }
  return distances;
}

std::vector<double> row_sums(const SquareMatrix& matrix) {
  std::vector<double> sums(matrix.side);
  for (std::size_t i = 0; i < matrix.side; ++i) sums[i] = pairwise_sum(matrix.row(i));
  return sums;
}

Position centre_of(std::span<const Position> positions, std::span<const double> shares) {
  Position centre{};
  for (std::size_t j = 0; j < positions.size(); ++j) {
    centre[0] += shares[j] * positions[j][0];
    centre[1] += shares[j] * positions[j][1];
  }
  return centre;
}

double square_distance(const Position& left, const Position& right) {
  const double rows = left[0] - right[0];
  const double columns = left[1] - right[1];
  return rows * rows + columns * columns;
}

// Weak values gone: set to 0, or all lowered by the limit.
template <typename Number>
void floor_values(std::vector<Number>& values, Number limit, bool cut) {
  for (Number& value : values) {
    if (cut) {
      value = value < limit ? Number{0} : value;
    } else {
      value = std::max(value - limit, Number{0});
    }
  }
}

void divide_by_maximum(std::vector<float>& values) {
  const float largest = *std::ranges::max_element(values);
  if (!(largest > 0)) return;
  for (float& value : values) value /= largest;
}

// Divided by the maximum, amplified, pruned, and divided again.
void finish(std::vector<float>& values, const Refinement& refinement) {
  const auto gain = static_cast<float>(std::min<double>(refinement.gain, std::numeric_limits<float>::max()));
  divide_by_maximum(values);
  for (float& value : values) value = std::min(value * gain, 1.0F);
  floor_values(values, static_cast<float>(refinement.prune), refinement.cut);
  divide_by_maximum(values);
}

// X0 - XT in each colour channel.
std::vector<double> difference_of(std::span<const float> start, std::span<const float> end) {
  std::vector<double> difference(start.size());
  for (std::size_t i = 0; i < start.size(); ++i) {
    difference[i] = static_cast<double>(start[i]) - static_cast<double>(end[i]);
    if (std::isfinite(difference[i])) continue;
    throw Error(
        "change of the picture: got NaN or infinity, expected finite numbers; use another precision or backend.");
  }
  return difference;
}

void stretch_channels(std::vector<double>& difference) {
  const std::size_t pixels = difference.size() / 3;
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const std::vector<double> stretched = unit(std::span(difference).subspan(channel * pixels, pixels));
    std::ranges::copy(stretched, difference.begin() + static_cast<std::ptrdiff_t>(channel * pixels));
  }
}

// The mean over RGB where it is above 0.
std::vector<double> lost_light(std::span<const double> difference) {
  const std::size_t pixels = difference.size() / 3;
  std::vector<double> lost(pixels);
  for (std::size_t i = 0; i < pixels; ++i) {
    lost[i] = std::max((difference[i] + difference[pixels + i] + difference[2 * pixels + i]) / 3.0, 0.0);
  }
  return lost;
}

// What theta is a multiple of.
double theta_scale(std::span<const double> values, ThetaUnit unit) {
  switch (unit) {
    case ThetaUnit::kMean: return mean(values);
    case ThetaUnit::kOtsu: return otsu_threshold(values);
    case ThetaUnit::kOtsuMax: return otsu_threshold(values) * *std::ranges::max_element(values);
  }
  throw Error("theta_unit: expected mean, otsu or otsu_max.");
}

std::vector<float> unit_norm(std::span<const double> values) {
  const double norm = std::sqrt(dot(values, values));
  std::vector<float> found(values.size());
  std::ranges::transform(values, found.begin(),
                         [=](double value) { return static_cast<float>(norm > 0 ? value / norm : value); });
  return found;
}

// Planes (3, h, w) of any numbers as a picture (h, w, 3) of levels.
std::vector<std::uint8_t> levels_of(std::span<const float> planes) {
  const std::size_t pixels = planes.size() / 3;
  std::vector<std::uint8_t> image(planes.size());
  for (std::size_t i = 0; i < planes.size(); ++i) {
    const float level = std::nearbyint(std::clamp(planes[i], 0.0F, 255.0F));
    image[i % pixels * 3 + i / pixels] = static_cast<std::uint8_t>(level);
  }
  return image;
}

}  // namespace

std::vector<float> saliency_map(std::span<const float> start, std::span<const float> end, std::size_t height,
                                std::size_t width, const Refinement& refinement) {
  const std::vector<float> raw = raw_map(start, end, height, width, refinement);
  return refine_map(raw, levels_of(start), height, width, refinement);
}

std::vector<float> raw_map(std::span<const float> start, std::span<const float> end, std::size_t height,
                           std::size_t width, const Refinement& refinement) {
  check(refinement);
  check_map_size("picture before the descent", start.size(), 3, height, width);
  check_map_size("picture after the descent", end.size(), 3, height, width);
  std::vector<double> difference = difference_of(start, end);
  if (refinement.per_channel) stretch_channels(difference);
  std::vector<double> found = lost_light(difference);
  if (refinement.theta > 0) {
    floor_values(found, refinement.theta * theta_scale(found, refinement.theta_unit), refinement.cut);
  }
  return unit_norm(found);
}

std::vector<float> refine_map(std::span<const float> raw, std::span<const std::uint8_t> image, std::size_t height,
                              std::size_t width, const Refinement& refinement) {
  check(refinement);
  check_map_size("raw map", raw.size(), 1, height, width);
  check_map_size("picture", image.size(), 3, height, width);
  std::vector<float> found(raw.begin(), raw.end());
  if (refinement.smooth || refinement.refine) {
    const Superpixels regions = segment(image, height, width, refinement.superpixels, refinement.compactness);
    if (refinement.smooth) found = regions.paint(regions.means(found));
    if (refinement.refine) {
      const std::vector<double> low = low_level(regions, refinement.sigma);
      const std::vector<float> painted = regions.paint(weights(low, refinement.alpha));
      std::ranges::transform(found, painted, found.begin(), std::multiplies<>{});
    }
  }
  finish(found, refinement);
  return found;
}

std::vector<double> low_level(const Superpixels& regions, double sigma) {
  if (regions.count() > kMostSuperpixels) {
    throw Error("low-level map: got " + std::to_string(regions.count()) + " superpixels, expected at most " +
                std::to_string(kMostSuperpixels) + "; ask for fewer, or leave `refine` out.");
  }
  const SquareMatrix distances = distances_of(regions.colours);
  const SquareMatrix similarity = similarities(distances, sigma);
  const std::vector<double> totals = row_sums(distances);
  std::vector<double> contrast(regions.count());
  for (std::size_t i = 0; i < contrast.size(); ++i) contrast[i] = dot(similarity.row(i), totals);
  std::vector<double> found = unit(contrast);
  const std::vector<double> scattered = unit(spread(regions.positions, similarity));
  for (std::size_t i = 0; i < found.size(); ++i) found[i] *= std::exp(-kSpreadWeight * scattered[i]);
  return found;
}

SquareMatrix similarities(const SquareMatrix& distances, double sigma) {
  SquareMatrix found = distances;
  const double scale = 2 * (sigma * sigma);
  for (double& value : found.values) value = std::exp(-(value * value) / scale);
  const std::vector<double> sums = row_sums(found);
  for (std::size_t i = 0; i < found.values.size(); ++i) found.values[i] /= sums[i / found.side];
  return found;
}

std::vector<double> spread(std::span<const Position> positions, const SquareMatrix& similarity) {
  if (positions.size() != similarity.side) {
    throw Error("spread: got " + std::to_string(positions.size()) + " positions, expected " +
                std::to_string(similarity.side) + "; give one for each row of the similarities.");
  }
  std::vector<double> found(positions.size());
  std::vector<double> squares(positions.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::span<const double> shares = similarity.row(i);
    const Position centre = centre_of(positions, shares);
    for (std::size_t j = 0; j < squares.size(); ++j) squares[j] = shares[j] * square_distance(positions[j], centre);
    found[i] = pairwise_sum(squares);
  }
  return found;
}

std::vector<double> weights(std::span<const double> low, double alpha) {
  std::vector<double> found = unit(low);
  const bool constant = std::ranges::all_of(found, [](double value) { return value == 0; });
  for (double& value : found) value = constant ? 1 + alpha : value + alpha;
  return found;
}

}  // namespace salience
