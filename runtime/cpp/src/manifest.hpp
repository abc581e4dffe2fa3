// What a bundle says of itself: `manifest.json`, the contract of export and runtime.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor.hpp"

namespace salience {

inline constexpr std::string_view kPrecisions[] = {"fp32", "fp16", "fp16-weights", "bf16", "int8"};
// Graphs that bring pictures and maps to the network's size and back; always run on the CPU.
inline constexpr std::string_view kHostGraphs[] = {"preprocess", "prior", "postprocess"};

struct FileEntry {
  std::string sha256;  // 64 hexadecimal digits
  std::uintmax_t bytes = 0;
};

// One graph: its interface, and the ONNX file of each precision in the manifest's order. `inputs` and `outputs` are
// those of the fp32 file; in the fp16 file the tensors of `half` are float16.
struct GraphEntry {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::vector<std::pair<std::string, std::string>> files;
  std::vector<std::string> half;

  const std::string* file(std::string_view precision) const;
  // With the types of the file of `precision`.
  GraphEntry at(std::string_view precision) const;
};

// Median time from a decoded picture to its map, by `threads` of one backend on the CPU.
struct Timing {
  std::string precision;
  std::string backend;
  std::int64_t threads = 1;
  double milliseconds = 0;
};

struct Tuning {
  std::int64_t cores = 1;
  std::vector<Timing> timings;

  // The count that ONNX Runtime was measured to be fastest with; 0 where it was not measured.
  std::int64_t threads(std::string_view precision) const;
};

// `input_size` is the network's (height, width); `classes` are the names of those that the method tells apart.
struct Manifest {
  std::string method;
  std::pair<std::int64_t, std::int64_t> input_size;
  std::string default_precision;
  std::vector<std::pair<std::string, GraphEntry>> graphs;
  std::vector<std::string> engine_files;
  std::vector<std::pair<std::string, FileEntry>> files;
  std::vector<std::string> classes;
  std::optional<Tuning> tuning;

  const GraphEntry* graph(std::string_view name) const;
};

// Throws BundleError with what does not fit, the first few things by their places, without a period at its end.
Manifest parse_manifest(std::string_view text);

}  // namespace salience
