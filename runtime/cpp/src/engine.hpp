// One graph of a bundle in ONNX Runtime, ready to run.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "cuda_driver.hpp"
#include "engine_options.hpp"
#include "tensor.hpp"
#include "tensors.hpp"

namespace salience {

// What ONNX Runtime needs once; it shares it itself, so that every detector may hold one.
using Environment = std::shared_ptr<Ort::Env>;

// Safe to call from many threads at once.
class Engine {
 public:
  // Throws BundleError where the bundle lacks the graph, EngineError where ONNX Runtime rejects the file,
  // BackendUnavailableError where the provider does not start.
  Engine(Environment environment, const Bundle& bundle, const std::string& graph, const std::string& precision,
         const EngineOptions& options);

  const std::vector<TensorSpec>& inputs() const { return inputs_; }
  const std::vector<TensorSpec>& outputs() const { return outputs_; }
  // The engine, in words.
  const std::string& label() const { return label_; }
  const EngineOptions& options() const { return options_; }
  Ort::Session& session() const { return *session_; }
  // Of memory on the engine's device; lives as long as the engine.
  OrtAllocator* allocator() const;
  // Copies between host and device.
  void copy(void* to, const void* from, std::size_t bytes) const;

  // The outputs, for every input; both live on the host.
  // Throws EngineError where an input is missing, unknown, or of another type or shape; or where the engine fails.
  Tensors run(const Tensors& feeds) const;

 private:
  void check_feeds(const Tensors& feeds) const;
  void check_outputs(const Tensors& found) const;

  Environment environment_;
  EngineOptions options_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  std::string label_;
  std::unique_ptr<Ort::Session> session_;
  // Of a GPU.
  std::optional<Ort::Allocator> allocator_;
  std::unique_ptr<CudaDriver> driver_;
};

}  // namespace salience
