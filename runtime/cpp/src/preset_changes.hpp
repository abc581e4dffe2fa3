// Presets with some of their parameters changed by text.
#pragma once

#include "presets.hpp"
#include "salience/salience.hpp"

namespace salience {

// Throws Error where there is no such preset or parameter, or a value is not possible.
Preset chosen_preset(const LocateOptions& options);

}  // namespace salience
