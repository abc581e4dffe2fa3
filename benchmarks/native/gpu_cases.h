// What `kernels_gpu` runs: every operator at sizes that can be read by 16 bytes and at others.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace salience::gpu {

// Throws where CUDA does not do what was asked for.
void require(cudaError_t status, const std::string& what);

struct Release {
  void operator()(void* memory) const { cudaFree(memory); }
};

using DeviceMemory = std::unique_ptr<void, Release>;

DeviceMemory device_memory(std::size_t bytes);

// One operator at one size.
struct Case {
  std::string name, sizes;
  std::size_t bytes;  // that must be read and written
  double tolerance;
  std::function<void()> run_on_cpu{};
  std::function<cudaError_t(cudaStream_t)> launch{};
  std::function<void()> forget{};        // what the device holds of the result
  std::function<double()> difference{};  // the largest between the device's result and the CPU's
};

// Made one after the other, so that only one is in memory.
std::vector<std::function<Case()>> all_cases();

}  // namespace salience::gpu
