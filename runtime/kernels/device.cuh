// What the CUDA kernels share: vectors of 16 bytes, places in a grid, sums over the threads of a block.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace salience::kernels {

constexpr int warp_threads = 32, block_threads = 256, block_warps = block_threads / warp_threads;

// Elements that are read or written at once, from an address that is a multiple of their size.
template <typename Value, int count>
struct alignas(count * sizeof(Value)) Vector {
  Value values[count];
};

// How many elements 16 bytes hold.
template <typename Value>
constexpr int widest = 16 / static_cast<int>(sizeof(Value));

// What the device moves with one instruction.
template <std::size_t bytes>
struct Word;
template <>
struct Word<16> {
  using Type = uint4;
};
template <>
struct Word<4> {
  using Type = std::uint32_t;
};
template <>
struct Word<2> {
  using Type = std::uint16_t;
};

template <int count, typename Value>
__device__ Vector<Value, count> load(const Value* from) {
  using Found = Vector<Value, count>;
  return __builtin_bit_cast(Found, *reinterpret_cast<const typename Word<sizeof(Found)>::Type*>(from));
}

// To global memory alone.
template <int count, typename Value>
__device__ void store(Value* to, const Vector<Value, count>& vector) {
  using Whole = typename Word<count * sizeof(Value)>::Type;
  // An assignment is taken apart by the compiler at times, and then written element by element.
  __stwb(reinterpret_cast<Whole*>(to), __builtin_bit_cast(Whole, vector));
}

// Whether an address allows reading 16 bytes at once.
inline bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

__device__ inline std::int64_t thread_in_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
}
__device__ inline std::int64_t threads_of_grid() { return static_cast<std::int64_t>(gridDim.x) * block_threads; }

// As many as a grid should have along an axis, and may have along each; kernels stride on where there is more to do.
constexpr std::int64_t most_blocks = 65535;

__host__ __device__ constexpr std::int64_t parts(std::int64_t whole, std::int64_t part) {
  return (whole + part - 1) / part;
}
constexpr unsigned blocks(std::int64_t wanted) {
  return static_cast<unsigned>(wanted < most_blocks ? wanted : most_blocks);
}

// Puts `kernel` on the stream, with blocks of `block_threads`; a grid without blocks is nothing to do.
template <typename... Parameters>
cudaError_t start(void (*kernel)(Parameters...), dim3 grid, cudaStream_t stream, const Parameters&... parameters) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(block_threads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, parameters...);
}

__device__ inline float larger(float a, float b) { return a > b ? a : b; }

// Within 3e-7: what the fast exponential loses where |x| is large, the slope of the sigmoid makes small again.
__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

// The sum over the threads of a warp, at all of them.
template <typename Value>
__device__ Value sum_warp(Value value) {
#pragma unroll
  for (int apart = warp_threads / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
  return value;
}

// The sums over the threads of a block, of `count` values: sum i is at thread i. Every thread must call it.
template <int count, typename Value>
__device__ Value sum_block(const Value (&values)[count]) {
  static_assert(count <= block_threads);
  __shared__ Value found[block_warps][count];
  const int lane = static_cast<int>(threadIdx.x) % warp_threads, warp = static_cast<int>(threadIdx.x) / warp_threads;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const Value sum = sum_warp(values[i]);
    if (lane == 0) found[warp][i] = sum;
  }
  __syncthreads();
  Value total = 0;
  if (threadIdx.x < count) {
    for (int other = 0; other < block_warps; ++other) total += found[other][threadIdx.x];
  }
  __syncthreads();
  return total;
}

}  // namespace salience::kernels
