#include "exact_sum.hpp"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace salience {
namespace {

// Adds a value to parts that do not overlap, the smallest first, and leaves such parts of the same exact sum.
void add(std::vector<double>& parts, double value) {
  std::size_t kept = 0;
  for (double part : parts) {
    if (std::abs(value) < std::abs(part)) std::swap(value, part);
    const double sum = value + part;
    const double error = part - (sum - value);
    if (error != 0) parts[kept++] = error;
    value = sum;
  }
  parts.resize(kept);
  parts.push_back(value);
}

double rounded(const std::vector<double>& parts) {
  std::size_t left = parts.size();
  if (left == 0) return 0;
  double sum = parts[--left];
  double error = 0;
  while (left > 0 && error == 0) {
    const double larger = sum;
    const double part = parts[--left];
    sum = larger + part;
    error = part - (sum - larger);
  }
  // Where the error is half a unit of the last place, what is left below it decides.
  if (left > 0 && std::signbit(error) == std::signbit(parts[left - 1]) && error != 0) {
    const double twice = 2 * error;
    const double next = sum + twice;
    if (next - sum == twice) sum = next;
  }
  return sum;
}

}  // namespace

double exact_sum(std::span<const float> values) {
  std::vector<double> parts;
  for (const float value : values) {
    if (!std::isfinite(value)) return std::numeric_limits<double>::quiet_NaN();
    add(parts, static_cast<double>(value));
  }
  return rounded(parts);
}

}  // namespace salience
