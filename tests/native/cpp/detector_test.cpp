// The library as a C++ program uses it.
#include <utility>
#include <vector>

#include "bundle_of_test.hpp"
#include "check.hpp"
#include "salience/salience.hpp"

using namespace salience;
using namespace salience::test;

namespace {

void serves(const Detector& detector) {
  CHECK_EQUAL(detector.method(), "multis");
  CHECK_EQUAL(detector.input_size().first, std::size_t{TEST_BUNDLE_HEIGHT});
  CHECK_EQUAL(detector.input_size().second, std::size_t{TEST_BUNDLE_WIDTH});
  CHECK(detector.classes().empty());
  const std::vector<std::uint8_t> pixels = scene(60, 90), wide = scene(30, 200);
  const SaliencyMap map = detector.predict({pixels.data(), 60, 90});
  CHECK_EQUAL(map.values().size(), std::size_t{60 * 90});
  // The disc stands out.
  CHECK(map.values()[30 * 90 + 45] > map.values()[0]);
  const std::vector<Image> images = {{wide.data(), 30, 200}, {pixels.data(), 60, 90}};
  const std::vector<SaliencyMap> maps = detector.predict_batch(images);
  CHECK_EQUAL(maps[0].width(), std::size_t{200});
  CHECK(maps[1].grey() == map.grey());
  CHECK(detector.predict_batch({}).empty());
}

void rows_may_be_apart(const Detector& detector) {
  const std::vector<std::uint8_t> pixels = scene(40, 50);
  std::vector<std::uint8_t> padded;
  for (std::size_t y = 0; y < 40; ++y) {
    const std::uint8_t* row = pixels.data() + y * 150;
    padded.insert(padded.end(), row, row + 150);
    padded.insert(padded.end(), 10, 255);
  }
  CHECK(detector.predict({padded.data(), 40, 50, 160}).values() == detector.predict({pixels.data(), 40, 50}).values());
}

void verbs_of_other_methods_are_refused(const Detector& detector) {
  const std::vector<std::uint8_t> pixels = scene(8, 8);
  const std::vector<float> prior(64, 0.5f);
  const Image image{pixels.data(), 8, 8};
  CHECK_THROWS(Error, detector.promote(image, {prior.data(), 8, 8}), "holds multis, expected lps for promote");
  CHECK_THROWS(Error, detector.promote_steps(image, {prior.data(), 8, 8}, {}), "expected lps for promote_steps");
  CHECK_THROWS(Error, detector.locate(image), "expected cgd for locate");
  CHECK_THROWS(Error, detector.predict_group({&image, 1}), "expected gicd for predict_group");
}

void options_that_are_not_possible() {
  const auto path = bundle_of_test();
  CHECK_THROWS(Error, load(path, {.precision = "fp8"}), "precision 'fp8' is not known: choose one of auto, fp32, fp16");
  CHECK_THROWS(BundleError, load(path, {.precision = "int8"}), "saliency has no int8 file, only fp16-weights");
  CHECK_THROWS(EngineError, load(path, {.device = "tpu"}), "device 'tpu': expected cpu, cuda or cuda:N.");
  CHECK_THROWS(EngineError, load(path, {.device = "cuda:x"}), "device 'cuda:x': expected");
  CHECK_THROWS(EngineError, load(path, {.threads = -1}), "threads -1: expected at least 1.");
  const Detector small = load(path, {.max_pixels = 63});
  const std::vector<std::uint8_t> pixels = scene(8, 8);
  CHECK_THROWS(ImageError, small.predict({pixels.data(), 8, 8}), "scale it down or raise max_pixels.");
}

void moves() {
  Detector detector = load(bundle_of_test(), {.threads = 1, .fused_kernels = false});
  CHECK(detector.backend().find("fused") == std::string::npos);
  const Detector moved = std::move(detector);
  serves(moved);
}

}  // namespace

int main() {
  const Detector detector = load(bundle_of_test());
  CHECK(detector.backend().ends_with("with fused kernels"));
  serves(detector);
  rows_may_be_apart(detector);
  verbs_of_other_methods_are_refused(detector);
  options_that_are_not_possible();
  moves();
  return result();
}
