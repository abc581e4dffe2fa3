// What people make of a map.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "components.hpp"
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

void threshold_is_half_of_the_maximum_at_least_point_3() {
  CHECK_EQUAL(SaliencyMap(1, 4, {0.0f, 0.25f, 0.25f, 1.0f}).threshold(), 0.5);
  CHECK_EQUAL(SaliencyMap(1, 2, {0.75f, 0.5f}).threshold(), 0.375);
  CHECK_EQUAL(SaliencyMap(1, 2, {0.25f, 0.5f}).threshold(), 0.3);
}

// A map (height, width) of rectangles of one value on 0.
SaliencyMap with_rectangles(std::size_t height, std::size_t width, const std::vector<Box>& rectangles, float value) {
  std::vector<float> values(height * width);
  for (const Box& box : rectangles) {
    for (std::size_t row = box.top; row < box.bottom; ++row) {
      for (std::size_t column = box.left; column < box.right; ++column) values[row * width + column] = value;
    }
  }
  return SaliencyMap(height, width, std::move(values));
}

void large_objects_have_a_mask_and_a_box() {
  const Box object{10, 5, 90, 80};  // 60 % of the image
  const SaliencyMap map = with_rectangles(100, 100, {object}, 0.9f);
  CHECK(map.box() == object);
  CHECK_EQUAL(std::ranges::count(map.mask(), 1), 80 * 75);
}

void boxes_leave_out_specks() {
  const Box object{10, 5, 30, 25};  // 400 pixels
  CHECK(with_rectangles(60, 60, {object, {50, 50, 54, 54}}, 1.0f).box() == object);
  CHECK((with_rectangles(60, 60, {object, {50, 50, 54, 55}}, 1.0f).box() == Box{10, 5, 54, 55}));
  // What touches at a corner is of the object.
  CHECK((with_rectangles(60, 60, {object, {30, 25, 31, 26}}, 1.0f).box() == Box{10, 5, 31, 26}));
  // The last column does not touch the first one of the next row.
  CHECK((with_rectangles(60, 60, {{0, 40, 20, 60}, {20, 0, 21, 1}}, 1.0f).box() == Box{0, 40, 20, 60}));
}

void weak_maps_have_no_box() {
  const Box object{1, 1, 3, 3};
  CHECK(!with_rectangles(4, 4, {object}, 0.0f).box());
  CHECK(!with_rectangles(4, 4, {object}, 0.29f).box());
  CHECK(with_rectangles(4, 4, {object}, 0.3f).box() == object);
  CHECK(with_rectangles(4, 4, {object}, 0.01f).box(0.005) == object);
  CHECK_THROWS(Error, with_rectangles(4, 4, {object}, 1.0f).box(1.5), "threshold 1.5: expected a number from 0 to 1.");
}

// Fills the component of a pixel with 0, and gives its pixels.
std::vector<std::size_t> take_component(std::vector<std::uint8_t>& mask, std::size_t width, std::size_t pixel) {
  const auto height = static_cast<std::ptrdiff_t>(mask.size() / width);
  std::vector<std::size_t> found = {pixel};
  mask[pixel] = 0;
  for (std::size_t at = 0; at < found.size(); ++at) {
    for (std::ptrdiff_t step = 0; step < 9; ++step) {
      const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(found[at] / width) + step / 3 - 1;
      const std::ptrdiff_t column = static_cast<std::ptrdiff_t>(found[at] % width) + step % 3 - 1;
      if (row < 0 || row >= height || column < 0 || column >= static_cast<std::ptrdiff_t>(width)) continue;
      const std::size_t other = static_cast<std::size_t>(row) * width + static_cast<std::size_t>(column);
      if (mask[other] == 0) continue;
      mask[other] = 0;
      found.push_back(other);
    }
  }
  return found;
}

std::optional<Box> box_by_flooding(std::vector<std::uint8_t> mask, std::size_t width, double least_share) {
  std::vector<std::vector<std::size_t>> components;
  for (std::size_t pixel = 0; pixel < mask.size(); ++pixel) {
    if (mask[pixel] != 0) components.push_back(take_component(mask, width, pixel));
  }
  std::size_t largest = 0;
  for (const auto& component : components) largest = std::max(largest, component.size());
  std::optional<Box> box;
  for (const auto& component : components) {
    if (static_cast<double>(component.size()) < least_share * static_cast<double>(largest)) continue;
    for (const std::size_t pixel : component) {
      const std::size_t row = pixel / width;
      const std::size_t column = pixel % width;
      if (!box) box = Box{row, column, row + 1, column + 1};
      box = Box{std::min(box->top, row), std::min(box->left, column), std::max(box->bottom, row + 1),
                std::max(box->right, column + 1)};
    }
  }
  return box;
}

void boxes_are_those_of_flooding() {
  std::mt19937 random(0);
  for (int round = 0; round < 2000; ++round) {
    const std::size_t height = 1 + random() % 20;
    const std::size_t width = 1 + random() % 20;
    const std::size_t inside = random() % 11;
    std::vector<std::uint8_t> mask(height * width);
    for (std::uint8_t& value : mask) value = random() % 10 < inside ? 1 : 0;
    for (const double share : {0.0, 0.05, 0.5, 1.0}) {
      CHECK(box_of_components(mask, width, share) == box_by_flooding(mask, width, share));
    }
  }
}

void mask_leaves_out_zeros() {
  const SaliencyMap map(1, 4, {0.0f, 0.25f, 0.25f, 0.75f});
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
  threshold_is_half_of_the_maximum_at_least_point_3();
  large_objects_have_a_mask_and_a_box();
  boxes_leave_out_specks();
  weak_maps_have_no_box();
  boxes_are_those_of_flooding();
  mask_leaves_out_zeros();
  refuses_sizes_that_do_not_fit();
  classes_are_the_likeliest_first();
  return result();
}
