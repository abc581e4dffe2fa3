// What is a manifest, and what is refused with which words.
#include "manifest.hpp"

#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "manifest_text.hpp"
#include "salience/errors.hpp"

using namespace salience;
using namespace salience::test;

namespace {

// A manifest in which one part is another.
std::string with_field(const std::string& name, const std::string& value) {
  return object(with(manifest(), name, value));
}

std::string with_graph(const std::string& name, const std::string& value) {
  return with_field("graphs", object({{"saliency", object(with(graph(), name, value))}}));
}

std::string with_spec(const std::string& name, const std::string& value) {
  return with_graph("inputs", "[" + object(with(spec(), name, value)) + "]");
}

std::string with_file(const std::string& name, const std::string& value) {
  return with_field("files", object({{"saliency.onnx", object(with(file(), name, value))}}));
}

std::string with_engine(const std::string& name, const std::string& value) {
  return with_field("engines", "[" + object(with(engine(), name, value)) + "]");
}

std::string with_timing(const std::string& name, const std::string& value) {
  const std::string timings = "[" + object(with(timing(), name, value)) + "]";
  return with_field("tuning", object({{"cores", "2"}, {"rounds", "7"}, {"timings", timings}}));
}

void accepts() {
  const Manifest found = parse_manifest(object(manifest()));
  CHECK_EQUAL(found.method, "multis");
  CHECK_EQUAL(found.input_size.first, 8);
  CHECK_EQUAL(found.graphs.size(), std::size_t{1});
  const GraphEntry& entry = found.graphs.front().second;
  CHECK_EQUAL(entry.inputs.front().text(), "float32 (batch, 3, 8, 8)");
  CHECK_EQUAL(*entry.file("fp32"), "saliency.onnx");
  CHECK(entry.file("fp16") == nullptr);
  CHECK_EQUAL(found.files.front().second.bytes, std::uintmax_t{3});
  CHECK(!found.tuning);
}

void accepts_what_may_be_left_out_or_given() {
  const std::string name200(200, 'x');
  for (const std::string& text :
       {with_field("format_version", ""), with_field("format_version", "1.0"), with_field("tuning", "null"),
        with_field("classes", R"(["cat", "dog"])"), with_field("provenance", R"({"any": [1, {"thing": null}]})"),
        with_engine("bytes", "3"), with_timing("threads", "1"), with_graph("half", R"(["input"])"),
        with_file("bytes", R"("3")"), with_file("bytes", "3.0"), with_field("input_size", R"(["8", 8.0])"),
        with_graph("files", R"({"fp32": ")" + name200 + "\"}")}) {
    parse_manifest(text);
  }
}

void fp16_changes_the_types_of_its_tensors() {
  const Manifest found = parse_manifest(with_graph("half", R"(["input"])"));
  const GraphEntry& entry = found.graphs.front().second;
  CHECK(entry.at("fp16").inputs.front().type == DataType::kFloat16);
  CHECK(entry.at("fp32").inputs.front().type == DataType::kFloat32);
}

void the_fastest_timing_gives_the_threads() {
  const std::string timings = "[" + object(timing()) + "," +
                              object(with(with(timing(), "threads", "1"), "milliseconds", "3")) + "," +
                              object(with(with(timing(), "backend", "\"openvino\""), "milliseconds", "1")) + "]";
  const Manifest found =
      parse_manifest(with_field("tuning", object({{"cores", "2"}, {"rounds", "7"}, {"timings", timings}})));
  CHECK_EQUAL(found.tuning->threads("fp32"), 1);
  CHECK_EQUAL(found.tuning->threads("int8"), 0);
}

void refuses() {
  const std::string long_name(201, 'x');
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "text: Invalid JSON"},
      {"{", "text: Invalid JSON"},
      {"\xef\xbb\xbf" + object(manifest()), "text: Invalid JSON"},
      {std::string(100'000, '['), "text: Invalid JSON"},
      {"null", "text: Input should be an object"},
      {"{}", "method: Field required; created: Field required; input_size: Field required"},
      {with_field("format_version", "2"), "format_version: Input should be 1"},
      {with_field("format_version", "\"1\""), "format_version: Input should be 1"},
      {with_field("surprise", "1"), "surprise: Extra inputs are not permitted"},
      {with_field("method", "3"), "method: Input should be a valid string"},
      {with_field("input_size", "[8]"), "input_size.1: Field required"},
      {with_field("input_size", "[8, 8, 8]"), "input_size: Tuple should have at most 2 items after validation, not 3"},
      {with_field("input_size", "[8, 8.5]"), "input_size.1: Input should be a valid integer"},
      {with_field("default_precision", "\"int3\""),
       "default_precision: Input should be 'fp32', 'fp16', 'fp16-weights', 'bf16' or 'int8'"},
      {with_field("provenance", "[]"), "provenance: Input should be an object"},
      {with_graph("files", "{}"), "graphs.saliency.files: Dictionary should have at least 1 item"},
      {with_graph("files", R"({"fp8": "a"})"), "graphs.saliency.files.fp8: expected one of the precisions"},
      {with_graph("files", R"({"fp32": "../a"})"), "'../a' is not a plain file name"},
      {with_graph("files", R"({"fp32": "a\\b"})"), "is not a plain file name"},
      {with_graph("files", R"({"fp32": ".."})"), "is not a plain file name"},
      {with_graph("files", R"({"fp32": "C:a"})"), "is not a plain file name"},
      {with_graph("files", R"({"fp32": ""})"), "String should have at least 1 character"},
      {with_graph("files", R"({"fp32": ")" + long_name + "\"}"), "String should have at most 200 characters"},
      {with_graph("extra", "1"), "graphs.saliency.extra: Extra inputs are not permitted"},
      {with_spec("dtype", "\"float64\""), "graphs.saliency.inputs.0.dtype: Input should be 'float32'"},
      {with_spec("shape", "[null]"), "graphs.saliency.inputs.0.shape.0: Input should be a valid integer"},
      {with_spec("shape", "[1.5]"), "graphs.saliency.inputs.0.shape.0: Input should be a valid integer"},
      {with_file("sha256", "\"abc\""), "files.saliency.onnx.sha256: String should match pattern"},
      {with_file("bytes", "-1"), "files.saliency.onnx.bytes: Input should be greater than or equal to 0"},
      {with_engine("profile", "[1, 2]"), "engines.0.profile.2: Field required"},
      {with_engine("builder", "\"other\""), "engines.0.builder: Input should be 'tensorrt' or 'tensorrt-rtx'"},
      {with_timing("threads", "0"), "tuning.timings.0.threads: Input should be greater than or equal to 1"},
      {with_timing("milliseconds", "-1"), "tuning.timings.0.milliseconds: Input should be greater than or equal to 0"},
  };
  for (const auto& [text, message] : bad) CHECK_THROWS(BundleError, parse_manifest(text), message);
}

}  // namespace

int main() {
  accepts();
  accepts_what_may_be_left_out_or_given();
  fp16_changes_the_types_of_its_tensors();
  the_fastest_timing_gives_the_threads();
  refuses();
  return result();
}
