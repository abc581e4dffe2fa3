// As much of CUDA's header as the kernels use, for a C++ compiler: a launch runs the kernel on the CPU, one block after
// the other, each thread of a block as a coroutine that waits at barriers. So the tests run the kernels' own code where
// there is no GPU. Not for timing, and every address is global memory.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>

#include "block.hpp"

#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(threads)
// Blocks come one after the other.
#define __shared__ static

inline const emulation::Size &threadIdx = emulation::current().thread, &blockIdx = emulation::current().block,
                             &gridDim = emulation::current().grid;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };

using cudaStream_t = void*;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

using dim3 = emulation::Size;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  emulation::run(config->gridDim, config->blockDim, [&] { kernel(arguments...); });
  return cudaSuccess;
}

inline void __syncthreads() { emulation::wait_for_block(); }

template <typename Value>
Value __shfl_xor_sync(unsigned, Value value, int apart) {
  return std::bit_cast<Value>(emulation::exchange(std::bit_cast<std::array<char, sizeof(Value)>>(value), apart));
}

inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }

template <typename Value>
void __stwb(Value* to, Value value) {
  *to = value;
}
