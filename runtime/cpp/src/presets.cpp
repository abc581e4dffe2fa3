#include "presets.hpp"

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "checks.hpp"
#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

constexpr std::array<std::string_view, 3> kPresetNames = {"default", "paper", "released"};
constexpr std::array<std::string_view, 3> kScaleNames = {"relative", "plain", "channel"};
constexpr std::array<std::string_view, 3> kThetaUnitNames = {"mean", "otsu", "otsu_max"};

std::string listed(std::span<const std::string_view> names) {
  return joined(std::vector<std::string>(names.begin(), names.end()));
}

// The place of a name among those of an enumeration.
std::size_t place_of(std::string_view name, std::span<const std::string_view> names, const std::string& parameter) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return i;
  }
  throw Error(parameter + " " + in_quotes(name) + " is not known: choose one of " + listed(names) + ".");
}

Preset paper_preset() {
  return {.descent = {.iterations = 10, .gamma = 0.01, .step = 2.0},
          .refinement = {.theta = 1.0,
                         .superpixels = 100,
                         .compactness = 10.0,
                         .sigma = 20.0,
                         .alpha = 0.5,
                         .gain = 1.0,
                         .prune = 0.1}};
}

Preset released_preset() {
  return {.descent = {.iterations = 35, .gamma = 200.0, .step = 20.0, .scale = StepScale::kChannel, .decay = 0.999},
          .refinement = {.per_channel = true,
                         .theta = 1.3,
                         .theta_unit = ThetaUnit::kOtsuMax,
                         .cut = true,
                         .superpixels = 100,
                         .compactness = 10.0,
                         .sigma = 20.0,
                         .alpha = 0.2,
                         .gain = 1.7,
                         .prune = 0.2}};
}

}  // namespace

StepScale step_scale_of(std::string_view name) {
  return static_cast<StepScale>(place_of(name, kScaleNames, "scale"));
}

ThetaUnit theta_unit_of(std::string_view name) {
  return static_cast<ThetaUnit>(place_of(name, kThetaUnitNames, "theta_unit"));
}

std::span<const std::string_view> preset_names() { return kPresetNames; }

Preset preset(std::string_view name) {
  if (name == "default") return {};
  if (name == "paper") return paper_preset();
  if (name == "released") return released_preset();
  throw Error("preset " + in_quotes(name) + ": not known, choose one of " + listed(kPresetNames) + ".");
}

void check(const Descent& descent) {
  check_number("iterations", descent.iterations, {.least = 1});
  check_number("gamma", descent.gamma, {.least = 0});
  check_number("step", descent.step, {.above = 0});
  check_number("decay", descent.decay, {.above = 0, .most = 1});
}

void check(const Refinement& refinement) {
  check_number("theta", refinement.theta, {.least = 0});
  check_number("superpixels", refinement.superpixels, {.least = 1});
  check_number("compactness", refinement.compactness, {.above = 0});
  check_number("sigma", refinement.sigma, {.above = 0});
  check_number("gain", refinement.gain, {.above = 0});
  check_number("alpha", refinement.alpha, {.least = 0, .most = 1});
  check_number("prune", refinement.prune, {.least = 0, .below = 1});
}

}  // namespace salience
