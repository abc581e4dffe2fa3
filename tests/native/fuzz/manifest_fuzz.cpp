// Any text as a manifest: it is refused with a BundleError of one line, or what comes of it keeps its promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "manifest.hpp"
#include "salience/errors.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool plain(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of("/\\:") == std::string_view::npos;
}

void check(const salience::Manifest& manifest) {
  for (const auto& [name, entry] : manifest.files) require(plain(name) && entry.sha256.size() == 64);
  for (const auto& name : manifest.engine_files) require(plain(name));
  for (const auto& [name, graph] : manifest.graphs) {
    require(!graph.files.empty());
    for (const auto& [precision, file] : graph.files) {
      require(plain(file));
      require(graph.at(precision).inputs.size() == graph.inputs.size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    check(salience::parse_manifest({reinterpret_cast<const char*>(data), size}));
  } catch (const salience::BundleError& error) {
    require(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
