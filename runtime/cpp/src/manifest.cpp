#include "manifest.hpp"

#include <algorithm>
#include <functional>

#include "reader.hpp"
#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

constexpr std::string_view kTypes[] = {"float32", "float16", "uint8", "int32", "int64", "bool"};
constexpr std::string_view kBuilders[] = {"tensorrt", "tensorrt-rtx"};
constexpr std::size_t kLongestName = 200;  // characters

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char byte) { return (byte & 0xC0) != 0x80; }));
}

void check_file_name(const std::string& name, const std::function<void(const std::string&)>& problem) {
  if (name.empty()) {
    problem("String should have at least 1 character");
  } else if (characters(name) > kLongestName) {
    problem("String should have at most " + std::to_string(kLongestName) + " characters");
  } else if (name == "." || name == ".." || name.find_first_of("/\\:") != std::string::npos) {
    problem("Value error, " + in_quotes(name) + " is not a plain file name; a bundle's files may not leave its folder");
  }
}

std::string file_name(const Reader& reader) {
  const std::string name = reader.text();
  if (reader.is_text()) check_file_name(name, [&](const std::string& what) { reader.problem(what); });
  return name;
}

std::vector<std::string> texts(const Reader& reader) {
  std::vector<std::string> found;
  for (const Reader& item : reader.items()) found.push_back(item.text());
  return found;
}

Dimension read_dimension(const Reader& reader) {
  if (reader.is_text()) return reader.text();
  return reader.integer();
}

TensorSpec read_spec(const Reader& reader) {
  TensorSpec spec;
  Fields fields(reader);
  if (const auto name = fields.required("name")) spec.name = name->text();
  if (const auto type = fields.required("dtype")) {
    const auto place = std::ranges::find(kTypes, type->choice(kTypes));
    if (place != std::end(kTypes)) spec.type = static_cast<DataType>(place - std::begin(kTypes));
  }
  if (const auto shape = fields.required("shape")) {
    for (const Reader& side : shape->items()) spec.shape.push_back(read_dimension(side));
  }
  return spec;
}

std::vector<TensorSpec> read_specs(const Reader& reader) {
  std::vector<TensorSpec> found;
  for (const Reader& item : reader.items()) found.push_back(read_spec(item));
  return found;
}

std::vector<std::pair<std::string, std::string>> read_graph_files(const Reader& reader) {
  std::vector<std::pair<std::string, std::string>> found;
  bool any = false;
  reader.members([&](const std::string& precision, const Reader& file) {
    any = true;
    if (std::ranges::find(kPrecisions, precision) == std::end(kPrecisions)) {
      file.problem("expected one of the precisions fp32, fp16, fp16-weights and int8");
    }
    found.emplace_back(precision, file_name(file));
  });
  if (!any && reader.is_object()) reader.problem("Dictionary should have at least 1 item after validation, not 0");
  return found;
}

GraphEntry read_graph(const Reader& reader) {
  GraphEntry entry;
  Fields fields(reader);
  if (const auto inputs = fields.required("inputs")) entry.inputs = read_specs(*inputs);
  if (const auto outputs = fields.required("outputs")) entry.outputs = read_specs(*outputs);
  if (const auto files = fields.required("files")) entry.files = read_graph_files(*files);
  if (const auto half = fields.optional("half")) entry.half = texts(*half);
  return entry;
}

// The file of a compiled engine, which this library does not run; all else is checked and left.
std::string read_engine(const Reader& reader) {
  std::string file;
  Fields fields(reader);
  if (const auto graph = fields.required("graph")) graph->text();
  if (const auto precision = fields.required("precision")) precision->choice(kPrecisions);
  if (const auto builder = fields.required("builder")) builder->choice(kBuilders);
  if (const auto version = fields.required("builder_version")) version->text();
  if (const auto targets = fields.required("targets")) texts(*targets);
  if (const auto profile = fields.required("profile")) {
    for (const Reader& size : profile->items(3)) size.integer();
  }
  if (const auto name = fields.required("file")) file = file_name(*name);
  if (const auto seconds = fields.required("build_s")) seconds->number();
  if (const auto bytes = fields.required("bytes")) bytes->integer();
  return file;
}

FileEntry read_file(const Reader& reader) {
  FileEntry entry;
  Fields fields(reader);
  if (const auto sha256 = fields.required("sha256")) {
    entry.sha256 = sha256->text();
    const bool fits =
        entry.sha256.size() == 64 && entry.sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (sha256->is_text() && !fits) sha256->problem("String should match pattern '^[0-9a-f]{64}$'");
  }
  if (const auto bytes = fields.required("bytes")) entry.bytes = static_cast<std::uintmax_t>(bytes->integer(0));
  return entry;
}

Timing read_timing(const Reader& reader) {
  Timing timing;
  Fields fields(reader);
  if (const auto precision = fields.required("precision")) timing.precision = precision->choice(kPrecisions);
  if (const auto backend = fields.required("backend")) timing.backend = backend->text();
  if (const auto threads = fields.required("threads")) timing.threads = threads->integer(1);
  if (const auto time = fields.required("milliseconds")) timing.milliseconds = time->number(0);
  return timing;
}

Tuning read_tuning(const Reader& reader) {
  Tuning tuning;
  Fields fields(reader);
  if (const auto cores = fields.required("cores")) tuning.cores = cores->integer(1);
  if (const auto rounds = fields.required("rounds")) rounds->integer();
  if (const auto timings = fields.required("timings")) {
    for (const Reader& item : timings->items()) tuning.timings.push_back(read_timing(item));
  }
  return tuning;
}

std::vector<std::pair<std::string, FileEntry>> read_files(const Reader& reader) {
  std::vector<std::pair<std::string, FileEntry>> found;
  reader.members([&](const std::string& name, const Reader& entry) {
    check_file_name(name, [&](const std::string& what) { entry.problem(what); });
    found.emplace_back(name, read_file(entry));
  });
  return found;
}

std::pair<std::int64_t, std::int64_t> read_size(const Reader& reader) {
  const std::vector<Reader> sides = reader.items(2);
  if (sides.empty()) return {};
  const std::int64_t height = sides[0].integer();
  return {height, sides[1].integer()};
}

void read_first_fields(Fields& fields, Manifest& manifest) {
  if (const auto version = fields.optional("format_version")) {
    if (!version->is_one()) version->problem("Input should be 1");
  }
  if (const auto method = fields.required("method")) manifest.method = method->text();
  if (const auto created = fields.required("created")) created->text();
  if (const auto size = fields.required("input_size")) manifest.input_size = read_size(*size);
  if (const auto precision = fields.required("default_precision")) {
    manifest.default_precision = precision->choice(kPrecisions);
  }
}

Manifest read_manifest(const Reader& reader) {
  Manifest manifest;
  Fields fields(reader);
  read_first_fields(fields, manifest);
  if (const auto graphs = fields.required("graphs")) {
    graphs->members(
        [&](const std::string& name, const Reader& entry) { manifest.graphs.emplace_back(name, read_graph(entry)); });
  }
  if (const auto engines = fields.optional("engines")) {
    for (const Reader& item : engines->items()) manifest.engine_files.push_back(read_engine(item));
  }
  if (const auto files = fields.required("files")) manifest.files = read_files(*files);
  if (const auto classes = fields.optional("classes")) manifest.classes = texts(*classes);
  if (const auto tuning = fields.optional("tuning"); tuning && !tuning->is_null()) {
    manifest.tuning = read_tuning(*tuning);
  }
  if (const auto provenance = fields.required("provenance")) {
    if (!provenance->is_object()) provenance->problem("Input should be an object");
  }
  return manifest;
}

}  // namespace

const std::string* GraphEntry::file(std::string_view precision) const {
  const auto found = std::ranges::find(files, precision, &std::pair<std::string, std::string>::first);
  return found == files.end() ? nullptr : &found->second;
}

GraphEntry GraphEntry::at(std::string_view precision) const {
  GraphEntry entry = *this;
  if (precision != "fp16") return entry;
  for (std::vector<TensorSpec>* specs : {&entry.inputs, &entry.outputs}) {
    for (TensorSpec& spec : *specs) {
      if (std::ranges::find(half, spec.name) != half.end()) spec.type = DataType::kFloat16;
    }
  }
  return entry;
}

std::int64_t Tuning::threads(std::string_view precision) const {
  const Timing* best = nullptr;
  for (const Timing& timing : timings) {
    if (timing.precision != precision || timing.backend != "onnxruntime") continue;
    if (!best || timing.milliseconds < best->milliseconds) best = &timing;
  }
  return best ? best->threads : 0;
}

const GraphEntry* Manifest::graph(std::string_view name) const {
  const auto found = std::ranges::find(graphs, name, &std::pair<std::string, GraphEntry>::first);
  return found == graphs.end() ? nullptr : &found->second;
}

Manifest parse_manifest(std::string_view text) {
  const std::optional<json::Value> tree = json::parse(text);
  if (!tree) throw BundleError("text: Invalid JSON");
  Problems problems;
  Manifest manifest = read_manifest(Reader(*tree, problems));
  if (!problems.empty()) throw BundleError(joined(problems, "; "));
  return manifest;
}

}  // namespace salience
