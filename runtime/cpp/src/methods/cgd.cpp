#include "methods/cgd.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "class_names.hpp"
#include "low_level.hpp"
#include "preset_changes.hpp"
#include "session.hpp"

namespace salience {
namespace {

// Limits of the picture that are none.
constexpr float kUnbounded = 1e30f;

// How each way of scaling the gradient is told to the graph.
std::array<float, 3> scaling_of(StepScale scale) {
  switch (scale) {
    case StepScale::kRelative: return {1, 0, 0};
    case StepScale::kPlain: return {0, 1, 0};
    case StepScale::kChannel: return {0, 0, 1};
  }
  throw Error("scale: expected relative, plain or channel.");
}

void feed_one(Session& session, const char* name, double value) {
  session.feed(name, std::array<float, 1>{static_cast<float>(value)}, {1});
}

}  // namespace

// One picture after the loop: X(T) (3, h, w), the logits (K,) of X(0), and the class's number.
struct ClampedDescentMethod::Descended {
  std::vector<float> image;
  std::vector<float> logits;
  std::size_t target = 0;
};

// A session whose outputs are its next inputs, so that picture, reference and class stay on the device.
class ClampedDescentMethod::Loop {
 public:
  Loop(const Engine& engine, std::int64_t batch) : session_(engine, batch) {
    for (const char* name : {"image", "reference", "target", "iteration"}) {
      session_.link(std::string("next_") + name, name);
    }
  }

  // `images` are (N, 3, h, w) in grey levels, `wanted` (N, K) is 0 everywhere for the class that is seen.
  void start(std::span<const float> images, const Shape& shape, std::span<const float> wanted, std::size_t classes) {
    const Shape table = {session_.batch(), static_cast<std::int64_t>(classes)};
    session_.feed("image", images, shape);
    session_.feed("reference", std::vector<float>(wanted.size()), table);
    session_.feed("target", wanted, table);
    session_.feed("iteration", std::array<std::int64_t, 1>{0}, {1});
  }

  void steps(const Descent& descent) {
    feed_one(session_, "gamma", descent.gamma);
    feed_one(session_, "step", descent.step);
    feed_one(session_, "decay", descent.decay);
    session_.feed("scaling", scaling_of(descent.scale), {3});
    const auto bounds = descent.clip ? std::array{0.0f, 255.0f} : std::array{-kUnbounded, kUnbounded};
    session_.feed("bounds", bounds, {2});
    for (int iteration = 0; iteration < descent.iterations; ++iteration) session_.run();
  }

  std::vector<Descended> finish() const {
    const auto count = static_cast<std::size_t>(session_.batch());
    const std::vector<float> images = session_.read("next_image"), logits = session_.read("next_reference");
    const std::vector<float> targets = session_.read("next_target");
    const auto row = [count](const std::vector<float>& values, std::size_t index) {
      const std::size_t length = values.size() / count;
      return std::span(values).subspan(index * length, length);
    };
    std::vector<Descended> found;
    for (std::size_t index = 0; index < count; ++index) {
      const auto image = row(images, index), scores = row(logits, index), chosen = row(targets, index);
      const auto target = std::ranges::max_element(chosen) - chosen.begin();
      found.push_back({{image.begin(), image.end()}, {scores.begin(), scores.end()}, static_cast<std::size_t>(target)});
    }
    return found;
  }

 private:
  Session session_;
};

ClampedDescentMethod::ClampedDescentMethod(Service service)
    : Method(std::move(service), std::vector<std::string>{"descend"}),
      names_(std::make_shared<const std::vector<std::string>>(manifest().classes)) {}

ClampedDescentMethod::~ClampedDescentMethod() = default;

ObjectMap ClampedDescentMethod::locate(const Image& image, const Target& target, const LocateOptions& options) const {
  const Preset preset = chosen_preset(options);
  const std::optional<std::size_t> chosen = class_index(*names_, target);
  const Prepared prepared = prepare(image);
  const Descended found = std::move(descend({&prepared, 1}, {chosen}, preset.descent).front());
  return {finish(prepared, map_of(prepared, found, preset.refinement)), found.target, found.logits, names_};
}

std::vector<float> ClampedDescentMethod::infer(std::span<const Prepared> prepared) const {
  const Preset preset;
  std::vector<float> maps;
  const std::vector<std::optional<std::size_t>> seen(prepared.size());
  for (const Descended& found : descend(prepared, seen, preset.descent)) {
    const std::vector<float> map = map_of(prepared[maps.size() / map_pixels()], found, preset.refinement);
    maps.insert(maps.end(), map.begin(), map.end());
  }
  return maps;
}

std::vector<ClampedDescentMethod::Descended> ClampedDescentMethod::descend(
    std::span<const Prepared> prepared, const std::vector<std::optional<std::size_t>>& targets,
    const Descent& descent) const {
  const std::size_t classes = names_->size();
  std::vector<float> wanted(prepared.size() * classes);
  for (std::size_t row = 0; row < targets.size(); ++row) {
    if (targets[row]) wanted[row * classes + *targets[row]] = 1;
  }
  const auto make = [&](std::int64_t batch) { return std::make_unique<Loop>(engine("descend"), batch); };
  const auto loop = loops_.take(static_cast<std::int64_t>(prepared.size()), make);
  loop->start(concatenated(prepared), network_shape(prepared.size(), 3), wanted, classes);
  loop->steps(descent);
  return loop->finish();
}

std::vector<float> ClampedDescentMethod::map_of(const Prepared& prepared, const Descended& found,
                                                const Refinement& refinement) const {
  if (!std::ranges::all_of(found.image, [](float value) { return std::isfinite(value); })) {
    throw Error(backend() + ": the descent left NaN or infinity; use another precision or backend.");
  }
  const auto [height, width] = manifest().input_size;
  return saliency_map(prepared.tensor, found.image, static_cast<std::size_t>(height), static_cast<std::size_t>(width),
                      refinement);
}

}  // namespace salience
