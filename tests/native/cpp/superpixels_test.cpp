// LAB colours and superpixels: what holds for any picture. That the labels are Python's is tested from Python.
#include "superpixels.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "colour.hpp"
#include "connected_labels.hpp"
#include "salience/errors.hpp"
#include "sample_pictures.hpp"

namespace {

using namespace salience;
using namespace salience::test;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// The published matrix and white have 6 digits.
constexpr double kPublished = 0.02;
constexpr double kRounding = 1e-9;

void check_colour(const std::array<double, 3>& rgb, const Lab& expected) {
  const Lab found = lab_from_rgb(rgb);
  for (std::size_t i = 0; i < 3; ++i) CHECK_NEAR(found[i], expected[i], kPublished);
}

void known_colours_have_their_lab() {
  check_colour({1, 1, 1}, {100, 0, 0});
  check_colour({0, 0, 0}, {0, 0, 0});
  check_colour({1, 0, 0}, {53.24, 80.09, 67.20});
  check_colour({0, 1, 0}, {87.73, -86.18, 83.18});
  check_colour({0, 0, 1}, {32.30, 79.19, -107.86});
}

void a_pictures_lab_is_that_of_its_colours() {
  const Bytes image = {255, 0, 51, 0, 0, 0};
  const LabPlanes planes = lab_from_rgb(image);
  const Lab expected = lab_from_rgb({1, 0, 0.2});
  for (std::size_t i = 0; i < 3; ++i) CHECK_NEAR(planes[i][0], expected[i], kRounding);
  CHECK_NEAR(planes[0][1], 0, kRounding);
}

void stretching_takes_the_levels_to_black_and_white() {
  const LabPlanes planes = lab_from_stretched_rgb(Bytes{50, 50, 50, 70, 70, 70, 90, 90, 90});
  CHECK_NEAR(planes[0][0], 0, kRounding);
  CHECK_NEAR(planes[0][1], lab_from_rgb({0.5, 0.5, 0.5})[0], kRounding);
  CHECK_NEAR(planes[0][2], 100, kPublished);
  CHECK_NEAR(lab_from_stretched_rgb(flat(1, 90))[0][0], 0, kRounding);
}

// How many pieces of equal labels a map has.
std::size_t pieces(std::vector<std::int32_t> labels, std::size_t width) {
  std::size_t found = 0;
  std::vector<std::size_t> waiting;
  for (std::size_t first = 0; first < labels.size(); ++first) {
    const std::int32_t label = labels[first];
    if (label < 0) continue;
    ++found;
    waiting.push_back(first);
    while (!waiting.empty()) {
      const std::size_t i = waiting.back();
      waiting.pop_back();
      if (labels[i] != label) continue;
      labels[i] = -1;
      if (i % width > 0) waiting.push_back(i - 1);
      if (i % width + 1 < width) waiting.push_back(i + 1);
      if (i >= width) waiting.push_back(i - width);
      if (i + width < labels.size()) waiting.push_back(i + width);
    }
  }
  return found;
}

void superpixels_partition_the_picture_into_connected_pieces() {
  const std::vector<std::array<std::size_t, 2>> sizes = {{1, 1}, {1, 40}, {40, 1}, {2, 3}, {37, 53}, {64, 64}};
  for (const auto& [height, width] : sizes) {
    for (const int count : {1, 2, 30, 5000}) {
      for (const double compactness : {0.5, 10.0, 1e6}) {
        const Superpixels found = segment(noise(height * width), height, width, count, compactness);
        CHECK_EQUAL(found.labels.size(), height * width);
        std::vector<int> pixels(found.count());
        for (const std::int32_t label : found.labels) ++pixels.at(static_cast<std::size_t>(label));
        CHECK(std::ranges::all_of(pixels, [](int number) { return number > 0; }));
        CHECK_EQUAL(pieces(found.labels, width), found.count());
      }
    }
  }
}

void superpixels_follow_an_edge() {
  Bytes image = flat(40 * 40, 20);
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = i / 3 % 40 < 17 ? 20 : 220;
  const Superpixels found = segment(image, 40, 40, 16, 10);
  for (std::size_t i = 0; i < found.labels.size(); ++i) {
    const double lightness = found.colours[static_cast<std::size_t>(found.labels[i])][0];
    CHECK_EQUAL(i % 40 < 17, lightness < 50);
  }
}

void superpixels_know_their_means() {
  const Superpixels found = segment(flat(6 * 9, 128), 6, 9, 1, 10);
  CHECK_EQUAL(found.count(), std::size_t{1});
  CHECK_NEAR(found.positions[0][0], 2.5, kRounding);
  CHECK_NEAR(found.positions[0][1], 4, kRounding);
  CHECK_NEAR(found.colours[0][0], lab_from_rgb({128 / 255.0, 128 / 255.0, 128 / 255.0})[0], kRounding);

  const Superpixels pair{{0, 1, 1, 0}, std::vector<Lab>(2), {{}, {}}};
  const Doubles means = pair.means(Floats{1, 2, 4, 5});
  CHECK_EQUAL(means[0], 3.0);
  CHECK_EQUAL(means[1], 3.0);
  CHECK(pair.paint(Doubles{7, 8}) == Floats({7, 8, 8, 7}));
}

void small_components_join_and_large_ones_are_taken_apart() {
  const std::vector<std::int32_t> labels = {0, 0, 0, 1, 2, 2, 2, 2, 2, 2};
  const std::vector<std::int32_t> joined = connected_labels(labels, 1, 10, {.least = 2, .most = 4});
  CHECK(joined == std::vector<std::int32_t>({0, 0, 0, 0, 1, 1, 1, 1, 2, 2}));
  const std::vector<std::int32_t> parted = connected_labels(std::vector<std::int32_t>{5, 3, 5}, 1, 3, {0, 10});
  CHECK(parted == std::vector<std::int32_t>({0, 1, 2}));
}

void sizes_that_cannot_be_are_refused() {
  CHECK_THROWS(Error, segment({}, 1, 8193, 1, 10), "got 1 x 8193 pixels, expected sides of 1 to 8192");
  CHECK_THROWS(Error, segment({}, 0, 2, 1, 10), "got 0 x 2 pixels");
  CHECK_THROWS(Error, segment(flat(3, 0), 2, 2, 1, 10), "got 9 values, expected 3 x 2 x 2");
  CHECK_THROWS(Error, segment(flat(4, 0), 2, 2, 0, 10), "superpixels 0: expected a number at least 1.");
  CHECK_THROWS(Error, segment(flat(4, 0), 2, 2, 1, 0), "compactness 0.0: expected a number above 0.");
  CHECK_THROWS(Error, segment(noise(64), 8, 8, 4, 1e-200), "compactness 1e-200: distances in colour overflow");
  const Superpixels found = segment(flat(4, 0), 2, 2, 1, 10);
  CHECK_THROWS(Error, found.paint(Doubles(3)), "got 3 values to paint with, expected 1");
  CHECK_THROWS(Error, found.means(Floats(3)), "got 3 values to average");
}

}  // namespace

int main() {
  known_colours_have_their_lab();
  a_pictures_lab_is_that_of_its_colours();
  stretching_takes_the_levels_to_black_and_white();
  superpixels_partition_the_picture_into_connected_pieces();
  superpixels_follow_an_edge();
  superpixels_know_their_means();
  small_components_join_and_large_ones_are_taken_apart();
  sizes_that_cannot_be_are_refused();
  return salience::test::result();
}
