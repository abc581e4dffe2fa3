#include "preset_changes.hpp"

#include <charconv>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "text.hpp"

namespace salience {
namespace {

using Set = std::function<void(const std::string& text)>;

[[noreturn]] void refuse(const std::string& name, const std::string& text, const char* expected) {
  throw Error("parameter " + name + "=" + text + ": expected " + expected + ".");
}

template <typename Number>
Set number(const std::string& name, Number& goal) {
  return [name, &goal](const std::string& text) {
    std::string digits = stripped(text);
    if (digits.starts_with('+')) digits.erase(0, 1);
    Number found{};
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), found);
    if (error != std::errc() || end != digits.data() + digits.size()) refuse(name, text, "a number");
    goal = found;
  };
}

Set truth(const std::string& name, bool& goal) {
  return [name, &goal](const std::string& text) {
    const std::string found = folded(text);
    if (found != "true" && found != "false" && found != "1" && found != "0") refuse(name, text, "true or false");
    goal = found == "true" || found == "1";
  };
}

// In the order in which they are listed.
std::vector<std::pair<std::string, Set>> setters(Descent& descent, Refinement& refinement) {
  const auto scale = [&descent](const std::string& text) { descent.scale = step_scale_of(text); };
  const auto unit = [&refinement](const std::string& text) { refinement.theta_unit = theta_unit_of(text); };
  return {
      {"iterations", number("iterations", descent.iterations)},
      {"gamma", number("gamma", descent.gamma)},
      {"step", number("step", descent.step)},
      {"scale", scale},
      {"decay", number("decay", descent.decay)},
      {"clip", truth("clip", descent.clip)},
      {"per_channel", truth("per_channel", refinement.per_channel)},
      {"theta", number("theta", refinement.theta)},
      {"theta_unit", unit},
      {"cut", truth("cut", refinement.cut)},
      {"smooth", truth("smooth", refinement.smooth)},
      {"refine", truth("refine", refinement.refine)},
      {"superpixels", number("superpixels", refinement.superpixels)},
      {"compactness", number("compactness", refinement.compactness)},
      {"sigma", number("sigma", refinement.sigma)},
      {"alpha", number("alpha", refinement.alpha)},
      {"gain", number("gain", refinement.gain)},
      {"prune", number("prune", refinement.prune)},
  };
}

}  // namespace

Preset chosen_preset(const LocateOptions& options) {
  Preset chosen = preset(options.preset);
  auto left = options.changes;
  std::vector<std::string> names;
  for (const auto& [name, set] : setters(chosen.descent, chosen.refinement)) {
    names.push_back(name);
    if (const auto change = left.extract(name)) set(change.mapped());
  }
  if (!left.empty()) {
    std::vector<std::string> unknown;
    for (const auto& [name, text] : left) unknown.push_back(name);
    throw Error("parameter " + joined(unknown) + ": not known, choose from " + joined(names) + ".");
  }
  check(chosen.descent);
  check(chosen.refinement);
  return chosen;
}

}  // namespace salience
