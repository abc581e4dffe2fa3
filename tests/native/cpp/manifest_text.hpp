// A manifest in pieces, each of which a test may replace.
#pragma once

#include <map>
#include <string>

namespace salience::test {

// Fields by name, each as JSON text.
using Members = std::map<std::string, std::string>;

inline std::string object(const Members& members) {
  std::string text = "{";
  for (const auto& [name, value] : members) text += (text.size() > 1 ? ", \"" : "\"") + name + "\": " + value;
  return text + "}";
}

inline Members spec() {
  return {{"name", R"("input")"}, {"dtype", R"("float32")"}, {"shape", R"(["batch", 3, 8, 8])"}};
}

inline Members graph() {
  return {{"inputs", "[" + object(spec()) + "]"}, {"outputs", "[]"}, {"files", R"({"fp32": "saliency.onnx"})"}};
}

inline Members file() { return {{"sha256", '"' + std::string(64, '0') + '"'}, {"bytes", "3"}}; }

inline Members engine() {
  return {{"graph", R"("saliency")"},        {"precision", R"("fp16")"}, {"builder", R"("tensorrt")"},
          {"builder_version", R"("10.12")"}, {"targets", R"(["8.6"])"},  {"profile", "[1, 1, 8]"},
          {"file", R"("saliency.engine")"},  {"build_s", "1.5"},         {"bytes", "3"}};
}

inline Members timing() {
  return {{"precision", R"("fp32")"}, {"backend", R"("onnxruntime")"}, {"threads", "2"}, {"milliseconds", "3.5"}};
}

inline Members manifest() {
  return {{"format_version", "1"},
          {"method", R"("multis")"},
          {"created", R"("2026-11-21")"},
          {"input_size", "[8, 8]"},
          {"default_precision", R"("fp32")"},
          {"graphs", object({{"saliency", object(graph())}})},
          {"files", object({{"saliency.onnx", object(file())}})},
          {"provenance", "{}"}};
}

// With one field replaced, added, or removed where `value` is empty.
inline Members with(Members members, const std::string& name, const std::string& value) {
  members[name] = value;
  if (value.empty()) members.erase(name);
  return members;
}

}  // namespace salience::test
