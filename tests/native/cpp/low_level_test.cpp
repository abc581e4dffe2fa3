// What follows the descent of `cgd`: algebra that holds for any picture. That maps are Python's is tested from there.
#include "low_level.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "salience/errors.hpp"
#include "sample_pictures.hpp"

namespace {

using namespace salience;
using namespace salience::test;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr double kRounding = 1e-9;
// Maps are float32.
constexpr double kSingle = 1e-6;

// Every step that may be left out is.
Refinement plain() { return {.theta = 0, .smooth = false, .refine = false, .gain = 1, .prune = 0}; }

// What `change` takes away from a grey picture of one row: X0 and XT.
struct Change {
  explicit Change(const Floats& change) {
    for (int channel = 0; channel < 3; ++channel) {
      for (const float value : change) {
        start.push_back(100);
        end.push_back(100 - value);
      }
    }
  }
  Floats start;
  Floats end;
};

Floats raw(const Floats& change, const Refinement& refinement) {
  const Change made(change);
  return raw_map(made.start, made.end, 1, change.size(), refinement);
}

Floats finished(const Floats& values, const Refinement& refinement) {
  return refine_map(values, flat(values.size(), 0), 1, values.size(), refinement);
}

void check_values(const Floats& found, const Doubles& expected) {
  CHECK_EQUAL(found.size(), expected.size());
  for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i) CHECK_NEAR(found[i], expected[i], kSingle);
}

void similarity_rows_sum_to_one_and_fall_with_distance() {
  const SquareMatrix found = similarities({2, {0, 10, 10, 0}}, 5);
  CHECK_NEAR(found.row(0)[0] + found.row(0)[1], 1, kRounding);
  CHECK_NEAR(found.row(1)[0] / found.row(1)[1], std::exp(-2.0), kRounding);
}

void spread_is_the_variance_of_the_places() {
  const SquareMatrix even{2, {0.5, 0.5, 0.5, 0.5}};
  const std::vector<std::array<double, 2>> places = {{0, 0}, {6, 0}};
  CHECK_NEAR(spread(places, even)[0], 9, kRounding);
  CHECK_THROWS(Error, spread(std::span(places).first(1), even), "got 1 positions, expected 2");
}

void a_rare_compact_colour_stands_out() {
  Superpixels regions;
  for (std::int32_t i = 0; i < 9; ++i) {
    regions.labels.push_back(i);
    regions.colours.push_back(i == 8 ? Lab{50, 60, 40} : Lab{50, 0, 0});
    regions.positions.push_back({static_cast<double>(i % 3), static_cast<double>(i)});
  }
  const Doubles found = low_level(regions, 20);
  CHECK_EQUAL(std::ranges::max_element(found) - found.begin(), 8);
  CHECK(std::ranges::all_of(found, [](double value) { return value >= 0 && value <= 1; }));
  regions.colours.assign(9, Lab{50, 0, 0});
  CHECK(low_level(regions, 20) == Doubles(9, 0.0));
}

void the_low_level_map_is_the_formula() {
  Superpixels regions;
  for (const double lightness : {0, 0, 20, 30, 40}) regions.colours.push_back({lightness, 0, 0});
  regions.positions = {{0, 0}, {0, 9}, {0, 3}, {0, 4}, {0, 5}};
  const Doubles found = low_level(regions, 1);
  // Distances add up to 90, 90, 70, 80 and 110, and the first colour alone is scattered.
  const Doubles expected = {0.5 * std::exp(-3.0), 0.5 * std::exp(-3.0), 0, 0.25, 1};
  for (std::size_t i = 0; i < found.size(); ++i) CHECK_NEAR(found[i], expected[i], kRounding);
}

void weights_run_from_alpha_to_one_more() {
  CHECK(weights(Doubles{2, 4, 3}, 0.25) == Doubles({0.25, 1.25, 0.75}));
  CHECK(weights(Doubles{3, 3}, 0.25) == Doubles({1.25, 1.25}));
}

void theta_lowers_or_cuts() {
  Refinement refinement = plain();
  refinement.theta = 1;
  check_values(raw({0, 1, 2, 5}, refinement), {0, 0, 0, 1});
  refinement.cut = true;
  check_values(raw({0, 1, 2, 5}, refinement), {0, 0, 2 / std::sqrt(29.0), 5 / std::sqrt(29.0)});
  refinement.theta_unit = ThetaUnit::kOtsu;
  check_values(raw({1, 1, 1, 2, 12, 12}, refinement), {0, 0, 0, 0, std::sqrt(0.5), std::sqrt(0.5)});
}

// The channels peak at different pixels, so the map's maximum is 1 / 3; its Otsu threshold is .15.
void the_released_cut_is_a_share_of_the_maximum() {
  const Floats start = {0, 0, 0, 0, 0, 15, 100, 0, 0, 0, 0, 0, 0, 0, 15, 0, 100, 0, 0, 0, 0, 0, 0, 15, 0, 0, 100};
  const Floats end(start.size(), 0);
  Refinement refinement = preset("released").refinement;
  CHECK(raw_map(start, end, 3, 3, refinement)[5] > 0);
  CHECK_EQUAL(raw_map(start, end, 3, 3, refinement)[0], 0.0F);
  refinement.theta_unit = ThetaUnit::kOtsu;
  CHECK_EQUAL(raw_map(start, end, 3, 3, refinement)[5], 0.0F);
}

void what_grew_is_not_salient_and_nothing_stays_nothing() {
  check_values(raw({5, -5}, plain()), {1, 0});
  for (const bool cut : {false, true}) {
    for (const bool per_channel : {false, true}) {
      const Refinement refinement{.per_channel = per_channel, .cut = cut};
      check_values(raw({0, 0, 0}, refinement), {0, 0, 0});
    }
  }
  // Taken away alike: the mean lowers all of it to nothing.
  check_values(raw({7, 7, 7}, Refinement{}), {0, 0, 0});
}

void per_channel_gives_every_colour_the_same_say() {
  const Floats start(6, 0);
  const Floats end = {0, -100, -1, 0, 0, 0};
  Refinement refinement = plain();
  check_values(raw_map(start, end, 1, 2, refinement), {0.0099995, 0.99995});
  refinement.per_channel = true;
  check_values(raw_map(start, end, 1, 2, refinement), {std::sqrt(0.5), std::sqrt(0.5)});
}

void the_end_is_amplified_pruned_and_divided_by_its_maximum() {
  const Floats values = {0, 1, 2, 6, 10};
  Refinement refinement = plain();
  check_values(finished(values, refinement), {0, 0.1, 0.2, 0.6, 1});
  refinement.gain = 2;
  check_values(finished(values, refinement), {0, 0.2, 0.4, 1, 1});
  refinement.prune = 0.3;
  check_values(finished(values, refinement), {0, 0, 0.1 / 0.7, 1, 1});
  refinement.cut = true;
  check_values(finished(values, refinement), {0, 0, 0.4, 1, 1});
  refinement.gain = std::numeric_limits<double>::max();
  check_values(finished(values, refinement), {0, 1, 1, 1, 1});
}

// A picture of 24 x 32 pixels with a little texture, a lighter object in it, and what a descent leaves of it.
struct Scene {
  Scene() : image(noise(height * width)) {
    for (std::size_t i = 0; i < image.size(); ++i) {
      image[i] = static_cast<std::uint8_t>(image[i] / 16 + (is_object(i / 3) ? 200 : 60));
    }
    for (std::size_t i = 0; i < image.size(); ++i) {
      const std::size_t pixel = i % (height * width);
      start.push_back(image[pixel * 3 + i / (height * width)]);
      end.push_back(start.back() - (is_object(pixel) ? 20.0F : 1.0F));
    }
  }
  bool is_object(std::size_t pixel) const { return pixel / width < 10 && pixel % width > 22; }

  std::size_t height = 24;
  std::size_t width = 32;
  Bytes image;
  Floats start;
  Floats end;
};

void a_map_is_its_parts_put_together_and_finds_the_object() {
  const Scene scene;
  for (const std::string_view name : preset_names()) {
    const Refinement refinement = preset(name).refinement;
    const Floats found = saliency_map(scene.start, scene.end, scene.height, scene.width, refinement);
    const Floats change = raw_map(scene.start, scene.end, scene.height, scene.width, refinement);
    CHECK(found == refine_map(change, scene.image, scene.height, scene.width, refinement));
    CHECK_EQUAL(*std::ranges::max_element(found), 1.0F);
    CHECK(*std::ranges::min_element(found) >= 0);
    for (std::size_t i = 0; i < found.size(); ++i) CHECK_EQUAL(found[i] > 0.5F, scene.is_object(i));
  }
}

void smoothing_takes_the_mean_over_each_superpixel() {
  const Floats values = {0, 1, 2, 6, 10};
  Refinement refinement = plain();
  refinement.smooth = true;
  refinement.superpixels = 1;
  check_values(finished(values, refinement), {1, 1, 1, 1, 1});
  refinement.superpixels = 5;
  check_values(finished(values, refinement), {0, 0.1, 0.2, 0.6, 1});
}

void a_picture_of_one_colour_keeps_its_smoothed_map() {
  const Bytes image = flat(16 * 16, 128);
  Floats values(16 * 16);
  std::iota(values.begin(), values.end(), 0.0F);
  Refinement refinement = plain();
  refinement.smooth = true;
  const Floats smoothed = refine_map(values, image, 16, 16, refinement);
  refinement.refine = true;
  const Floats refined = refine_map(values, image, 16, 16, refinement);
  for (std::size_t i = 0; i < smoothed.size(); ++i) CHECK_NEAR(smoothed[i], refined[i], kSingle);
}

void sizes_and_numbers_that_cannot_be_are_refused() {
  const Floats six(6, 1);
  const Refinement refinement = plain();
  CHECK_THROWS(Error, raw({1}, Refinement{.theta = -1}), "theta -1.0");
  CHECK_THROWS(Error, finished({1}, Refinement{.gain = -1}), "gain -1.0");
  CHECK_THROWS(Error, raw_map(six, six, 1, 3, refinement), "got 6 values, expected 3 x 1 x 3");
  CHECK_THROWS(Error, raw_map(six, Floats(5), 1, 2, refinement), "picture after the descent: got 5 values");
  CHECK_THROWS(Error, raw_map(six, six, 0, 2, refinement), "got 0 x 2 pixels, expected sides of 1 to 8192");
  CHECK_THROWS(Error, refine_map(six, flat(6, 0), 2, 2, refinement), "raw map: got 6 values");
  CHECK_THROWS(Error, refine_map(six, flat(5, 0), 2, 3, refinement), "picture: got 15 values");
  Floats broken = six;
  broken[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS(Error, raw_map(six, broken, 1, 2, refinement), "got NaN or infinity");
  Superpixels many;
  many.colours.resize(8193);
  CHECK_THROWS(Error, low_level(many, 5), "got 8193 superpixels, expected at most 8192");
}

}  // namespace

int main() {
  similarity_rows_sum_to_one_and_fall_with_distance();
  spread_is_the_variance_of_the_places();
  a_rare_compact_colour_stands_out();
  the_low_level_map_is_the_formula();
  weights_run_from_alpha_to_one_more();
  theta_lowers_or_cuts();
  the_released_cut_is_a_share_of_the_maximum();
  what_grew_is_not_salient_and_nothing_stays_nothing();
  per_channel_gives_every_colour_the_same_say();
  the_end_is_amplified_pruned_and_divided_by_its_maximum();
  a_map_is_its_parts_put_together_and_finds_the_object();
  smoothing_takes_the_mean_over_each_superpixel();
  a_picture_of_one_colour_keeps_its_smoothed_map();
  sizes_and_numbers_that_cannot_be_are_refused();
  return salience::test::result();
}
