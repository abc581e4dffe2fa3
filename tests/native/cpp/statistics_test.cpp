// Sums, thresholds and stretching of maps.
#include "statistics.hpp"

#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include "check.hpp"

namespace {

using namespace salience;
using Doubles = std::vector<double>;

constexpr double kRounding = 1e-9;

void otsu_parts_two_values() {
  const double threshold = otsu_threshold(Doubles{2, 2, 2, 10});
  // The centre of the first of 256 bins from 2 to 10.
  CHECK_NEAR(threshold, 2 + 8.0 / 512, kRounding);
  CHECK_EQUAL(otsu_threshold(Doubles(5, 3.25)), 3.25);
  CHECK_EQUAL(otsu_threshold(Doubles{1, std::nextafter(1.0, 2.0)}), 1.0);
}

void sums_are_exact_where_they_can_be() {
  for (const std::size_t size : std::vector<std::size_t>{0, 1, 7, 8, 9, 128, 129, 1000, 4096}) {
    Doubles values(size);
    std::iota(values.begin(), values.end(), 1.0);
    CHECK_EQUAL(pairwise_sum(values), static_cast<double>(size * (size + 1) / 2));
  }
}

void stretching_takes_values_to_zero_and_one() {
  CHECK(unit(Doubles{3, 5, 4}) == Doubles({0, 1, 0.5}));
  CHECK(unit(Doubles{3, 3 + 1e-9}) == Doubles({0, 0}));
}

}  // namespace

int main() {
  otsu_parts_two_values();
  sums_are_exact_where_they_can_be();
  stretching_takes_values_to_zero_and_one();
  return salience::test::result();
}
