// Serve bundles from C++: `load` one, give it pictures, priors or groups, get saliency maps.
//
//   const salience::Detector detector = salience::load("bundles/multis");
//   const salience::SaliencyMap map = detector.predict({pixels, height, width});
//
// The bundles and the maps are those of the Python package. Errors are salience::Error, see errors.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "salience/errors.hpp"
#include "salience/export.h"

namespace salience {

// A picture, (H, W, 3) uint8 RGB, its rows `row_bytes` apart; 0 stands for 3 * width. Not owned.
struct Image {
  const std::uint8_t* data = nullptr;
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t row_bytes = 0;
};

// A saliency map to start from, (H, W) float32 in [0, 1], contiguous, of any size. Not owned.
struct Prior {
  const float* data = nullptr;
  std::size_t height = 0;
  std::size_t width = 0;
};

struct LoadOptions {
  // "fp32", "fp16", "fp16-weights" or "int8", or "auto" for the bundle's default.
  std::string precision = "auto";
  // "cpu", "cuda" or "cuda:N".
  std::string device = "cpu";
  // CPU threads of one call; 0 for as many as the bundle measured to be fastest on so many cores, else for all.
  int threads = 0;
  // Run the graphs' own operators by kernels made for them. There are such for the CPU, and in "fp16" not for all, so
  // that it and GPUs go without.
  bool fused_kernels = true;
  // Larger pictures and priors are refused.
  std::size_t max_pixels = 150'000'000;
};

struct GroupOptions {
  // For features that are kept between the two passes over a group; what does not fit is computed again.
  std::size_t memory_bytes = 512'000'000;
  // Pictures per call of the engine.
  std::size_t batch = 1;
};

// What to do with a prior that is 0 or 1 everywhere and so names no object or no background.
enum class EmptyPrior { kError, kKeep };

struct PromoteOptions {
  // Rounds, at least 1; the paper takes 1, its code 3.
  int iterations = 1;
  EmptyPrior empty = EmptyPrior::kError;
};

// The class whose object is looked for.
class SALIENCE_API Target {
 public:
  // The one that the classifier sees.
  Target() = default;
  // By name, by one of a name's synonyms, which commas part, or by number as text; upper and lower case are alike.
  Target(std::string name) : name_(std::move(name)) {}
  Target(const char* name) : name_(name) {}
  // By number.
  Target(int number) : number_(number) {}

  const std::optional<std::string>& name() const { return name_; }
  std::optional<int> number() const { return number_; }

 private:
  std::optional<std::string> name_;
  std::optional<int> number_;
};

struct LocateOptions {
  // "default", "paper" or "released".
  std::string preset = "default";
  // Changes of it as text, such as {"superpixels", "50"} or {"refine", "false"}.
  std::map<std::string, std::string> changes;
};

// Pixels of an image: rows from `top` to `bottom`, columns from `left` to `right`, both ends exclusive.
struct Box {
  std::size_t top = 0;
  std::size_t left = 0;
  std::size_t bottom = 0;
  std::size_t right = 0;

  bool operator==(const Box&) const = default;
};

// The saliency of one picture at its own size.
class SALIENCE_API SaliencyMap {
 public:
  // `values` are height * width; Error where they are not.
  SaliencyMap(std::size_t height, std::size_t width, std::vector<float> values);

  std::size_t height() const { return height_; }
  std::size_t width() const { return width_; }

  // (H, W) float32 in [0, 1], 1 for the salient object, row by row.
  const std::vector<float>& values() const { return values_; }

  // (H, W) uint8, 255 for saliency 1.
  std::vector<std::uint8_t> grey() const;

  // The default threshold of masks and boxes: half of the map's maximum, and at least .3.
  double threshold() const;

  // (H, W), 1 where values are at least `limit`, `threshold()` by default, else 0; never 1 where the map is 0.
  // By default, the mask of a map with a maximum below .3 is empty. Throws Error where `limit` is not in [0, 1].
  std::vector<std::uint8_t> mask(std::optional<double> limit = std::nullopt) const;

  // The box around the object: around `mask(limit)` without specks, which are 8-connected components of less than 5 %
  // of the largest component's area. None where the mask is empty. Throws Error where `limit` is not in [0, 1].
  std::optional<Box> box(std::optional<double> limit = std::nullopt) const;

 private:
  std::size_t height_;
  std::size_t width_;
  std::vector<float> values_;
};

// The map of one class's object, and what the classifier says of the picture.
class SALIENCE_API ObjectMap : public SaliencyMap {
 public:
  // `names` are the classes', `logits` (K,) float32 those of the unchanged picture, `target` the class's number.
  ObjectMap(SaliencyMap map, std::size_t target, std::vector<float> logits,
            std::shared_ptr<const std::vector<std::string>> names);

  std::size_t target() const { return target_; }
  const std::string& label() const { return (*names_)[target_]; }
  const std::vector<float>& logits() const { return logits_; }

  // The likeliest classes and their probabilities, the softmax of the logits.
  std::vector<std::pair<std::string, double>> classes(std::size_t count = 5) const;

 private:
  std::size_t target_;
  std::vector<float> logits_;
  std::shared_ptr<const std::vector<std::string>> names_;
};

class Method;

// Serves one bundle. All verbs may be called from many threads at once.
//
// Every verb throws ImageError where a picture or prior is not what it should be, EngineError where the engine fails,
// and Error where the bundle's method does not have the verb or an option is not possible.
class SALIENCE_API Detector {
 public:
  Detector(Detector&&) noexcept;
  Detector& operator=(Detector&&) noexcept;
  ~Detector();

  // "multis", "arn", "lps", "cgd" or "gicd".
  const std::string& method() const;
  // Of the graphs that run.
  const std::string& precision() const;
  // The engine that runs them, in words.
  const std::string& backend() const;
  // The network's (height, width).
  std::pair<std::size_t, std::size_t> input_size() const;
  // The names of the classes that the method tells apart, in the order of its logits.
  const std::vector<std::string>& classes() const;

  // The saliency map of one picture.
  SaliencyMap predict(const Image& image) const;

  // The maps of several pictures of any sizes, in one call of the engine.
  std::vector<SaliencyMap> predict_batch(std::span<const Image> images) const;

  // `gicd`: what a group of pictures has in common (GICD), in the order of `images`; no map depends on that order.
  std::vector<SaliencyMap> predict_group(std::span<const Image> images, const GroupOptions& options = {}) const;

  // `lps`: the map that `iterations` rounds make of a prior, which is stretched over the picture (LPS).
  SaliencyMap promote(const Image& image, const Prior& prior, const PromoteOptions& options = {}) const;

  // `lps`: the maps after each of the rounds.
  std::vector<SaliencyMap> promote_steps(const Image& image, const Prior& prior, const PromoteOptions& options) const;

  // `cgd`: the object of a class (Clamped descent, algorithm 1).
  ObjectMap locate(const Image& image, const Target& target = {}, const LocateOptions& options = {}) const;

 private:
  friend SALIENCE_API Detector load(const std::filesystem::path& bundle, const LoadOptions& options);
  explicit Detector(std::unique_ptr<const Method> method);

  std::unique_ptr<const Method> method_;
};

// Open a bundle, a folder made by export/build_engine.py, for serving.
//
// Throws BundleError where it is missing or damaged, BackendUnavailableError where what was asked for cannot run here.
SALIENCE_API Detector load(const std::filesystem::path& bundle, const LoadOptions& options = {});

// Of the library, such as "0.1.0".
SALIENCE_API const char* version() noexcept;

}  // namespace salience
