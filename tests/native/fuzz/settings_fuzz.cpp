// Any text as the name or value of a parameter, as a class, and as a device: refused with an Error, or within bounds.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "bytes.hpp"
#include "class_names.hpp"
#include "preset_changes.hpp"
#include "salience/errors.hpp"

namespace {

const char* const kNames[] = {"iterations", "gamma",  "step",   "scale",       "decay",       "clip",
                              "per_channel", "theta", "theta_unit", "cut",     "smooth",      "refine",
                              "superpixels", "compactness", "sigma", "alpha",  "gain",        "prune"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  salience::fuzz::Bytes input(data, size);
  try {
    salience::LocateOptions options;
    options.preset = input.flag() ? "released" : input.text(16);
    while (options.changes.size() < 4 && input.flag()) {
      std::string name = input.flag() ? kNames[input.below(std::size(kNames) - 1)] : input.text(16);
      options.changes.insert_or_assign(std::move(name), input.text(24));
    }
    const salience::Preset found = salience::chosen_preset(options);
    if (found.descent.iterations < 1 || !(found.refinement.gain > 0)) std::abort();
  } catch (const salience::Error&) {
  }
  const std::vector<std::string> names{"tabby, tabby cat", "tiger cat", "7", input.text(12)};
  try {
    const auto index = salience::class_index(names, input.text(64));
    if (index && *index >= names.size()) std::abort();
  } catch (const salience::Error&) {
  }
  return 0;
}
