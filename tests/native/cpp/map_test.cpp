// What people make of a map.
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "salience/salience.hpp"

using namespace salience;
using namespace salience::test;

namespace {

void grey_rounds_to_even() {
  // .5, 1.5 and 2.5 levels, and what rounding overshoots.
  const std::vector<float> values = {0.5f / 255, 1.5f / 255, 2.5f / 255, 1.0f, 1.001f, -0.001f};
  const std::vector<std::uint8_t> expected = {0, 2, 2, 255, 255, 0};
  CHECK(SaliencyMap(2, 3, values).grey() == expected);
}

void threshold_is_twice_the_mean_at_most_1() {
  CHECK_NEAR(SaliencyMap(1, 4, {0.0f, 0.25f, 0.25f, 0.5f}).threshold(), 0.5, 1e-12);
  CHECK_EQUAL(SaliencyMap(1, 2, {0.75f, 1.0f}).threshold(), 1.0);
}

void mask_leaves_out_zeros() {
  const SaliencyMap map(1, 4, {0.0f, 0.25f, 0.25f, 0.5f});
  CHECK((map.mask() == std::vector<std::uint8_t>{0, 0, 0, 1}));
  CHECK((map.mask(0.0) == std::vector<std::uint8_t>{0, 1, 1, 1}));
  CHECK((SaliencyMap(1, 2, {0.0f, 0.0f}).mask() == std::vector<std::uint8_t>{0, 0}));
  CHECK_THROWS(Error, map.mask(1.5), "threshold 1.5: expected a number from 0 to 1.");
  CHECK_THROWS(Error, map.mask(std::numeric_limits<double>::quiet_NaN()), "threshold nan: expected");
}

void refuses_sizes_that_do_not_fit() {
  CHECK_THROWS(Error, SaliencyMap(2, 2, {0.0f}), "got 1 values, expected 2 x 2");
  CHECK_THROWS(Error, SaliencyMap(0, 0, {}), "not empty");
  constexpr std::size_t half = std::size_t{1} << 63;
  CHECK_THROWS(Error, SaliencyMap(half, 2, {}), "got 0 values");
}

void classes_are_the_likeliest_first() {
  const auto names = std::make_shared<const std::vector<std::string>>(std::vector<std::string>{"cat", "dog", "car"});
  const ObjectMap map(SaliencyMap(1, 1, {1.0f}), 2, {1.0f, 3.0f, 1.0f}, names);
  CHECK_EQUAL(map.label(), "car");
  const auto found = map.classes();
  CHECK_EQUAL(found.size(), std::size_t{3});
  CHECK_EQUAL(found[0].first, "dog");
  CHECK_NEAR(found[0].second, std::exp(2) / (std::exp(2) + 2), 1e-12);
  // Equal ones keep the order of their numbers.
  CHECK_EQUAL(found[1].first, "cat");
  CHECK_EQUAL(map.classes(1).size(), std::size_t{1});
  CHECK_THROWS(Error, ObjectMap(SaliencyMap(1, 1, {1.0f}), 3, {1.0f, 3.0f, 1.0f}, names), "got class 3");
}

}  // namespace

int main() {
  grey_rounds_to_even();
  threshold_is_twice_the_mean_at_most_1();
  mask_leaves_out_zeros();
  refuses_sizes_that_do_not_fit();
  classes_are_the_likeliest_first();
  return result();
}
