// The parameters of `cgd`: which are refused, and in which words.
#include "presets.hpp"

#include <limits>
#include <string_view>

#include "check.hpp"
#include "salience/errors.hpp"

namespace {

using namespace salience;

void parameters_out_of_range_are_named() {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK_THROWS(Error, check(Descent{.iterations = 0}), "iterations 0: expected a number at least 1.");
  CHECK_THROWS(Error, check(Descent{.gamma = -1}), "gamma -1.0: expected a number at least 0.");
  CHECK_THROWS(Error, check(Descent{.step = 0}), "step 0.0: expected a number above 0.");
  CHECK_THROWS(Error, check(Descent{.decay = 1.5}), "decay 1.5: expected a number above 0 and at most 1.");
  CHECK_THROWS(Error, check(Refinement{.theta = kNan}), "theta nan: expected a number at least 0.");
  CHECK_THROWS(Error, check(Refinement{.superpixels = 0}), "superpixels 0: expected a number at least 1.");
  CHECK_THROWS(Error, check(Refinement{.compactness = -1e-7}), "compactness -1e-07: expected a number above 0.");
  CHECK_THROWS(Error, check(Refinement{.sigma = kInfinity}), "sigma inf: expected a number above 0.");
  CHECK_THROWS(Error, check(Refinement{.alpha = 1.5}), "alpha 1.5: expected a number at least 0 and at most 1.");
  CHECK_THROWS(Error, check(Refinement{.gain = 0}), "gain 0.0: expected a number above 0.");
  CHECK_THROWS(Error, check(Refinement{.prune = 1}), "prune 1.0: expected a number at least 0 and below 1.");
}

void unknown_names_are_answered_with_the_known() {
  CHECK(theta_unit_of("otsu") == ThetaUnit::kOtsu);
  CHECK(theta_unit_of("otsu_max") == ThetaUnit::kOtsuMax);
  CHECK(step_scale_of("channel") == StepScale::kChannel);
  CHECK_THROWS(Error, step_scale_of("median"), "scale 'median' is not known: choose one of relative, plain, channel.");
  CHECK_THROWS(Error, theta_unit_of("median"), "theta_unit 'median' is not known: choose one of mean, otsu, otsu_max.");
  CHECK_THROWS(Error, preset("best"), "preset 'best': not known, choose one of default, paper, released.");
}

void presets_differ_and_are_possible() {
  CHECK(preset("default") == Preset{});
  for (const std::string_view name : preset_names()) {
    check(preset(name).descent);
    check(preset(name).refinement);
    for (const std::string_view other : preset_names()) CHECK_EQUAL(name == other, preset(name) == preset(other));
  }
}

void the_released_preset_has_the_released_codes_numbers() {
  const auto [descent, refinement] = preset("released");
  CHECK_EQUAL(descent.iterations, 35);
  CHECK_EQUAL(descent.gamma, 200.0);
  CHECK_EQUAL(descent.step, 20.0);
  CHECK_EQUAL(descent.decay, 0.999);
  CHECK(descent.scale == StepScale::kChannel);
  CHECK(refinement.per_channel && refinement.cut && refinement.theta_unit == ThetaUnit::kOtsuMax);
  CHECK_EQUAL(refinement.theta, 1.3);
  CHECK_EQUAL(refinement.alpha, 0.2);
  CHECK_EQUAL(refinement.gain, 1.7);
  CHECK_EQUAL(refinement.prune, 0.2);
}

}  // namespace

int main() {
  parameters_out_of_range_are_named();
  unknown_names_are_answered_with_the_known();
  presets_differ_and_are_possible();
  the_released_preset_has_the_released_codes_numbers();
  return salience::test::result();
}
