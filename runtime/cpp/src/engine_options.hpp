// Where and how an engine runs.
#pragma once

#include <string>

namespace salience {

struct EngineOptions {
  std::string device = "cpu";  // or "cuda", or "cuda:N"
  int threads = 0;             // of the CPU; 0: all cores
  bool fused_kernels = true;

  // Throws EngineError where the device is none or the threads are negative.
  void check() const;
  bool on_gpu() const { return device != "cpu"; }
  // The number of the GPU, 0 where none is named.
  int device_index() const;
  // ONNX Runtime's execution provider.
  std::string provider() const { return on_gpu() ? "CUDAExecutionProvider" : "CPUExecutionProvider"; }
};

// The cores that this process may use.
int available_cores();

}  // namespace salience
