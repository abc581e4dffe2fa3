// The parameters of clamped gradient descent (`cgd`): of its loop, and of what makes a map of the change.
#pragma once

#include <span>
#include <string_view>

namespace salience {

// What the rectified gradient g is brought to: g / max(g) of the picture, g as it is, or min-max to [0, 1] in each
// colour channel.
enum class StepScale { kRelative, kPlain, kChannel };

// What theta is a multiple of: the raw map's mean, its Otsu threshold, or that threshold times the map's maximum. The
// last is the released code's and needs `per_channel`, which brings the map to [0, 1].
enum class ThetaUnit { kMean, kOtsu, kOtsuMax };

// "relative", "plain" or "channel". Throws Error on another name.
StepScale step_scale_of(std::string_view name);

// "mean", "otsu" or "otsu_max". Throws Error on another name.
ThetaUnit theta_unit_of(std::string_view name);

// How the picture descends: X(t+1) = X(t) - step_t * max(dF/dX, 0), eq. 1 and 2.
struct Descent {
  // T, how many steps, at least 1.
  int iterations = 10;
  // Weight of the clamped classes in F, at least 0; 0 clamps nothing.
  double gamma = 0.01;
  // Epsilon: grey levels, in relative and channel steps what the largest gradient moves its pixel by; above 0.
  double step = 2.0;
  StepScale scale = StepScale::kRelative;
  // What the step is multiplied by after each iteration, above 0 and at most 1.
  double decay = 1.0;
  // Keep X in [0, 255].
  bool clip = false;

  bool operator==(const Descent&) const = default;
};

// How the map is made of the difference X0 - XT.
struct Refinement {
  // Stretch the difference to [0, 1] in each colour channel before the channels are averaged.
  bool per_channel = false;
  // Floor of the raw map in units of `theta_unit`; at least 0, where 0 floors nothing.
  double theta = 2.0;
  ThetaUnit theta_unit = ThetaUnit::kMean;
  // Weak values become 0 and the others stay; otherwise all values are lowered by the limit. For theta and prune.
  bool cut = false;
  // Take the mean over each superpixel (eq. 4).
  bool smooth = true;
  // Multiply the low-level map in (eq. 5, 6).
  bool refine = true;
  // About how many SLIC makes, at least 1.
  int superpixels = 100;
  // Of SLIC: how far their shape prevails over colour; above 0.
  double compactness = 20.0;
  // How far apart in LAB colours are similar; above 0.
  double sigma = 5.0;
  // The low-level map is brought to [alpha, 1 + alpha] before it is multiplied in; 0 to 1.
  double alpha = 0.1;
  // What the map, divided by its maximum, is multiplied by, with 1 as the limit; above 0.
  double gain = 8.0;
  // Weak values of the map at the end, a fraction of its maximum; at least 0 and below 1, where 0 prunes nothing.
  double prune = 0.3;

  bool operator==(const Refinement&) const = default;
};

// The parameters of the loop and of what follows it.
struct Preset {
  Descent descent;
  Refinement refinement;

  bool operator==(const Preset&) const = default;
};

// "default", "paper", "released".
std::span<const std::string_view> preset_names();

// The parameters of that name. Throws Error on another name.
Preset preset(std::string_view name);

// Throws Error, naming the first of the parameters that is out of bounds.
void check(const Descent& descent);
void check(const Refinement& refinement);

}  // namespace salience
