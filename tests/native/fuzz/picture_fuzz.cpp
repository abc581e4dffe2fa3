// Any sizes, strides and values of pictures and priors that a caller may hand in, and maps made of them. Memory that
// is said to be there is there; sizes beyond it must be refused before anything is read.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "bytes.hpp"
#include "low_level.hpp"
#include "pictures.hpp"
#include "salience/errors.hpp"
#include "salience/salience.hpp"

namespace {

constexpr std::size_t max_pixels = 1 << 14, max_side = 48;

void require(bool holds) {
  if (!holds) std::abort();
}

// A side that memory is there for, or one that must be refused.
std::size_t side(salience::fuzz::Bytes& input) {
  return input.flag() ? input.below(max_side) : input.number<std::size_t>();
}

void try_picture(salience::fuzz::Bytes& input) {
  const std::vector<std::uint8_t> memory(max_pixels * 3, 7);
  salience::Image image{memory.data(), side(input), side(input), 0};
  if (input.flag()) image.row_bytes = input.number<std::size_t>();
  salience::check(image, max_pixels);
  const std::size_t row = image.row_bytes ? image.row_bytes : 3 * image.width;
  require(image.height * image.width <= max_pixels && row >= 3 * image.width);
  // A stride that leaves this memory is the caller's word, which nothing can check.
  if (image.height > 1 && row > (memory.size() - 3 * image.width) / (image.height - 1)) return;
  std::vector<std::uint8_t> storage;
  const std::uint8_t* packed = salience::packed(image, storage);
  require(std::all_of(packed, packed + 3 * image.height * image.width, [](std::uint8_t value) { return value == 7; }));
}

void try_prior(salience::fuzz::Bytes& input) {
  std::vector<float> memory(max_pixels, 0.5f);
  for (float& value : memory) {
    if (input.empty()) break;
    value = input.number<float>();
  }
  const std::vector<float> values = salience::checked_values({memory.data(), side(input), side(input)}, max_pixels);
  require(std::all_of(values.begin(), values.end(), [](float value) { return value >= 0.0f && value <= 1.0f; }));
  salience::require_regions(values);
}

salience::Refinement refinement(salience::fuzz::Bytes& input) {
  salience::Refinement found;
  found.per_channel = input.flag(), found.cut = input.flag();
  found.smooth = input.flag(), found.refine = input.flag();
  found.theta_unit = static_cast<salience::ThetaUnit>(input.number<std::uint8_t>() % 3);
  found.superpixels = input.number<int>();
  for (double* value : {&found.theta, &found.compactness, &found.sigma, &found.alpha, &found.gain, &found.prune}) {
    *value = input.flag() ? input.number<double>() : input.number<std::uint8_t>() / 64.0;
  }
  return found;
}

void try_refinement(salience::fuzz::Bytes& input) {
  const salience::Refinement settings = refinement(input);
  const auto height = input.below(max_side);
  const auto width = input.below(max_side);
  std::vector<float> start(3 * height * width, 128.0f), end = start;
  const bool wild = input.below(9) == 0;
  for (std::vector<float>* values : {&start, &end}) {
    for (float& value : *values) {
      if (input.empty()) break;
      value = wild ? input.number<float>() : static_cast<float>(input.number<std::uint8_t>());
    }
  }
  const std::vector<float> map = salience::saliency_map(start, end, height, width, settings);
  require(map.size() == height * width);
  require(std::all_of(map.begin(), map.end(), [](float value) { return value >= 0.0f && value <= 1.0f; }));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  salience::fuzz::Bytes input(data, size);
  try {
    switch (input.below(3)) {
      case 0:
        try_picture(input);
        break;
      case 1:
        try_prior(input);
        break;
      default:
        try_refinement(input);
    }
  } catch (const salience::Error& error) {
    require(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
