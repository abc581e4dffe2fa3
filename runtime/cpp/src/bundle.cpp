#include "bundle.hpp"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>
#include <system_error>

#include "salience/errors.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace salience {
namespace {

constexpr std::uintmax_t kManifestLimitBytes = 4u << 20;

std::string read_text(const std::filesystem::path& path, std::uintmax_t limit_bytes) {
  std::error_code reason;
  if (std::filesystem::is_directory(path, reason)) throw std::system_error(EISDIR, std::generic_category());
  if (reason) throw std::system_error(reason);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::system_error(errno, std::generic_category());
  // One byte more than may be there says that there is more, whatever the file system says of its size.
  std::string text(limit_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) throw std::system_error(EIO, std::generic_category());
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

Manifest read_manifest(const std::filesystem::path& folder, const std::string& subject) {
  std::string text;
  try {
    text = read_text(folder / "manifest.json", kManifestLimitBytes);
  } catch (const std::system_error& error) {
    throw BundleError(subject + ": no readable manifest.json (" + error.code().message() +
                      "); expected a folder made by export/build_engine.py.");
  }
  if (text.size() > kManifestLimitBytes) {
    throw BundleError(subject + ": its manifest is larger than " + std::to_string(kManifestLimitBytes >> 20) + " MB.");
  }
  try {
    return parse_manifest(text);
  } catch (const BundleError& error) {
    throw BundleError(subject + ": its manifest does not fit this version of salience (" + error.what() +
                      "); build the bundle again.");
  }
}

// A link may point anywhere, so the file itself must lie in the folder.
bool is_plain_file(const std::filesystem::path& path) {
  std::error_code reason;
  const bool whole_name = path.native().find('\0') == std::string::npos;
  return whole_name && std::filesystem::symlink_status(path, reason).type() == std::filesystem::file_type::regular;
}

std::string missing_graph(const Manifest& manifest, std::string_view name) {
  std::vector<std::string> names;
  for (const auto& [known, entry] : manifest.graphs) names.push_back(known);
  return "no graph " + in_quotes(name) + "; it has " + printable(joined(names)) + ".";
}

std::string missing_precision(const Manifest& manifest, std::string_view name, std::string_view precision,
                              const GraphEntry& entry) {
  std::vector<std::string> files;
  for (const auto& [known, file] : entry.files) files.push_back(known);
  const std::string wanted(precision);
  return std::string(name) + " has no " + wanted + " file, only " + joined(files) +
         "; build it with: python export/build_engine.py " + printable(manifest.method) + " --precision " + wanted;
}

}  // namespace

Bundle::Bundle(const std::filesystem::path& folder)
    : folder_(folder), subject_("bundle " + path_text(folder)), manifest_(read_manifest(folder_, subject_)) {
  for (const auto& [name, entry] : manifest_.files) check_file(name, entry);
  require_checksums();
}

void Bundle::require_checksums() const {
  std::set<std::string> listed(manifest_.engine_files.begin(), manifest_.engine_files.end());
  for (const auto& [graph, entry] : manifest_.graphs) {
    for (const auto& [precision, file] : entry.files) listed.insert(file);
  }
  for (const auto& [name, entry] : manifest_.files) listed.erase(name);
  if (listed.empty()) return;
  const std::vector<std::string> unlisted(listed.begin(), listed.end());
  throw BundleError(subject_ + ": " + printable(joined(unlisted)) + " has no checksum; build the bundle again.");
}

void Bundle::check_file(const std::string& name, const FileEntry& entry) const {
  const std::filesystem::path path = folder_ / name;
  const std::string subject = subject_ + ": " + printable(name);
  if (!is_plain_file(path)) {
    throw BundleError(subject + " is missing or a link; copy the whole folder again.");
  }
  std::uintmax_t found_bytes = 0;
  try {
    found_bytes = std::filesystem::file_size(path);
    if (found_bytes == entry.bytes && sha256_of(path) == entry.sha256) return;
  } catch (const std::system_error& error) {
    throw BundleError(subject + " cannot be read (" + error.code().message() + ").");
  }
  throw BundleError(subject + " is damaged (its checksum or size, " + std::to_string(found_bytes) +
                    " bytes, is not the manifest's, " + std::to_string(entry.bytes) +
                    " bytes); copy or build the bundle again.");
}

std::filesystem::path Bundle::graph_file(std::string_view name, std::string_view precision) const {
  const GraphEntry* entry = manifest_.graph(name);
  if (!entry) throw BundleError(subject_ + ": " + missing_graph(manifest_, name));
  const std::string* file = entry->file(precision);
  if (!file) throw BundleError(subject_ + ": " + missing_precision(manifest_, name, precision, *entry));
  return folder_ / *file;
}

GraphEntry Bundle::graph(std::string_view name, std::string_view precision) const {
  const GraphEntry* entry = manifest_.graph(name);
  if (!entry) throw BundleError(subject_ + ": " + missing_graph(manifest_, name));
  return entry->at(precision);
}

std::vector<std::string> Bundle::precisions() const {
  std::vector<std::string> found;
  for (const auto& [name, entry] : manifest_.graphs) {
    if (std::ranges::find(kHostGraphs, name) != std::end(kHostGraphs)) continue;
    for (const auto& [precision, file] : entry.files) {
      if (std::ranges::find(found, precision) == found.end()) found.push_back(precision);
    }
  }
  return found;
}

}  // namespace salience
