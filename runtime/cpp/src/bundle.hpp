// Open a bundle: parse its manifest, check every file against it, hand out paths.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "manifest.hpp"

namespace salience {

// A folder whose files are what its manifest says.
class Bundle {
 public:
  // Throws BundleError: no bundle, another format version, a file missing, changed, or outside the folder.
  explicit Bundle(const std::filesystem::path& folder);

  const Manifest& manifest() const { return manifest_; }
  // As messages name it: "bundle FOLDER".
  const std::string& subject() const { return subject_; }

  // The interface of a graph with the types of its file of `precision`, and that file.
  // Throws BundleError where the bundle lacks the graph or the precision.
  GraphEntry graph(std::string_view name, std::string_view precision) const;
  std::filesystem::path graph_file(std::string_view name, std::string_view precision) const;

  // The precisions of the method's own graphs, in the manifest's order.
  std::vector<std::string> precisions() const;

 private:
  void check_file(const std::string& name, const FileEntry& entry) const;
  void require_checksums() const;

  std::filesystem::path folder_;
  std::string subject_;
  Manifest manifest_;
};

}  // namespace salience
