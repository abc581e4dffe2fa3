#include "engine.hpp"

#include <algorithm>
#include <cstring>

#include "open_session.hpp"
#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

std::vector<const char*> pointers(const std::vector<std::string>& names) {
  std::vector<const char*> found;
  for (const std::string& name : names) found.push_back(name.c_str());
  return found;
}

}  // namespace

Engine::Engine(Environment environment, const Bundle& bundle, const std::string& graph, const std::string& precision,
               const EngineOptions& options)
    : environment_(std::move(environment)), options_(options) {
  const std::filesystem::path path = bundle.graph_file(graph, precision);
  GraphEntry entry = bundle.graph(graph, precision);
  inputs_ = std::move(entry.inputs);
  outputs_ = std::move(entry.outputs);
  label_ = "onnxruntime " + options_.provider() + " " + path.filename().string();
  if (takes_kernels(precision, options_)) label_ += " with fused kernels";
  session_ = open_session(*environment_, path, precision, options_);
  if (options_.on_gpu()) {
    const Ort::MemoryInfo memory("Cuda", OrtDeviceAllocator, options_.device_index(), OrtMemTypeDefault);
    allocator_.emplace(*session_, memory);
    driver_ = std::make_unique<CudaDriver>(options_.device_index());
  }
}

OrtAllocator* Engine::allocator() const {
  if (allocator_) return *allocator_;
  return Ort::AllocatorWithDefaultOptions();
}

void Engine::copy(void* to, const void* from, std::size_t bytes) const {
  if (driver_) {
    driver_->copy(to, from, bytes);
  } else if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}

Tensors Engine::run(const Tensors& feeds) const {
  check_feeds(feeds);
  const std::vector<const char*> inputs = pointers(feeds.names);
  Tensors found{names_of(outputs_), {}};
  const std::vector<const char*> outputs = pointers(found.names);
  try {
    found.values = session_->Run(Ort::RunOptions{}, inputs.data(), feeds.values.data(), inputs.size(), outputs.data(),
                                 outputs.size());
  } catch (const Ort::Exception& error) {
    throw EngineError(label_ + ": failed while running (" + first_line(error) + ").");
  }
  check_outputs(found);
  return found;
}

void Engine::check_feeds(const Tensors& feeds) const {
  const bool all = std::ranges::all_of(inputs_, [&](const TensorSpec& spec) { return feeds.find(spec.name); });
  if (!all || feeds.names.size() != inputs_.size()) {
    const std::string given = feeds.names.empty() ? "none" : joined(feeds.names);
    throw EngineError(label_ + ": inputs " + given + " given, expected " + joined(names_of(inputs_)) + ".");
  }
  std::vector<std::string> wrong;
  for (const TensorSpec& spec : inputs_) {
    if (std::string text = mismatch(spec, *feeds.find(spec.name)); !text.empty()) wrong.push_back(std::move(text));
  }
  if (!wrong.empty()) throw EngineError(label_ + ": " + joined(wrong, "; ") + ".");
}

// Whoever reads them counts on the manifest's shapes.
void Engine::check_outputs(const Tensors& found) const {
  for (std::size_t index = 0; index < outputs_.size(); ++index) {
    const std::string wrong = mismatch(outputs_[index], found.values[index]);
    if (!wrong.empty()) throw EngineError(label_ + ": " + wrong + "; build the bundle again.");
  }
}

}  // namespace salience
