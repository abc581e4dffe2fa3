// What callers hand in is checked before it is used.
#include "pictures.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"

using namespace salience;
using namespace salience::test;

namespace {

constexpr std::size_t kHuge = std::numeric_limits<std::size_t>::max();
const std::vector<std::uint8_t> kPixels(100);

void refuses_pictures() {
  const std::uint8_t* data = kPixels.data();
  CHECK_THROWS(ImageError, check(Image{nullptr, 2, 2}, 100), "data is null");
  CHECK_THROWS(ImageError, check(Image{data, 0, 2}, 100),
               "image array of shape (0, 2, 3): expected (H, W, 3), not empty.");
  CHECK_THROWS(ImageError, check(Image{data, 2, 0}, 100), "not empty");
  CHECK_THROWS(ImageError, check(Image{data, 11, 10}, 100), "10 x 11 is 0 megapixels, the limit is 0");
  CHECK_THROWS(ImageError, check(Image{data, kHuge, kHuge}, kMostPixels), "megapixels, the limit is 1099512");
  CHECK_THROWS(ImageError, check(Image{data, 2, 2, 5}, 100), "rows 5 bytes apart: expected 3 * width, 6, or more");
  CHECK_THROWS(ImageError, check(Image{data, 2, 2, kHuge}, 100), "that fit in memory");
  check(Image{data, 10, 10}, 100);
}

void packs_rows() {
  const std::vector<std::uint8_t> padded = {1, 2, 3, 0, 4, 5, 6, 0};
  std::vector<std::uint8_t> storage;
  const Image image{padded.data(), 2, 1, 4};
  const std::uint8_t* rows = packed(image, storage);
  CHECK((std::vector<std::uint8_t>(rows, rows + 6) == std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6}));
  CHECK(packed(Image{padded.data(), 1, 2, 6}, storage) == padded.data());
}

void checks_priors() {
  const std::vector<float> values = {-0.0005f, 0.5f, 1.0005f};
  CHECK((checked_values({values.data(), 1, 3}, 10) == std::vector<float>{0.0f, 0.5f, 1.0f}));
  const std::vector<float> wrong = {0.0f, 255.0f}, undefined = {0.5f, std::nanf("")};
  CHECK_THROWS(ImageError, checked_values({wrong.data(), 1, 2}, 10), "holds values from 0 to 255, expected [0, 1]");
  CHECK_THROWS(ImageError, checked_values({undefined.data(), 1, 2}, 10), "holds values from nan to nan");
  CHECK_THROWS(ImageError, checked_values({nullptr, 1, 2}, 10), "data is null");
  CHECK_THROWS(ImageError, checked_values({values.data(), 0, 2}, 10), "map array of shape (0, 2): expected (H, W)");
  CHECK_THROWS(ImageError, checked_values({values.data(), 3, 4}, 10), "megapixels");
}

void requires_an_object_and_a_background() {
  require_regions(std::vector<float>{0.0f, 0.1f});
  require_regions(std::vector<float>{0.5f, 0.5f});
  CHECK_THROWS(ImageError, require_regions(std::vector<float>{0.0f, 0.0f}), "prior: is 0 everywhere");
  CHECK_THROWS(ImageError, require_regions(std::vector<float>{1.0f, 1.0f}), "prior: is 1 everywhere");
}

}  // namespace

int main() {
  refuses_pictures();
  packs_rows();
  checks_priors();
  requires_an_object_and_a_background();
  return result();
}
