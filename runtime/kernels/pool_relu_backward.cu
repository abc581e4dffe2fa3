#include "device.cuh"
#include "launch.h"

namespace salience::kernels {
namespace {

template <int lanes>
__device__ void clip(const ClipBackward& backward, std::int64_t start) {
  const auto grad = load<lanes>(backward.grad + start), activation = load<lanes>(backward.activation + start);
  Vector<float, lanes> result;
#pragma unroll
  for (int i = 0; i < lanes; ++i) {
    const bool open = activation.values[i] > backward.low && activation.values[i] < backward.high;
    result.values[i] = open ? grad.values[i] : 0.0f;
  }
  store(backward.result + start, result);
}

template <int lanes>
__global__ void __launch_bounds__(block_threads) clip_all(const __grid_constant__ ClipBackward backward) {
  const std::int64_t vectors = backward.count / lanes;
  for (std::int64_t i = thread_in_grid(); i < vectors; i += threads_of_grid()) clip<lanes>(backward, i * lanes);
  for (std::int64_t i = vectors * lanes + thread_in_grid(); i < backward.count; i += threads_of_grid()) {
    clip<1>(backward, i);
  }
}

// A window's four elements, row by row.
struct Window {
  float a, b, c, d;
};

// Where in the window the gradient goes.
__device__ Window unpool(float grad, const Window& active) {
  const float upper = larger(active.a, active.b), lower = larger(active.c, active.d);
  const float passed = larger(upper, lower) > 0.0f ? grad : 0.0f;
  const float above = upper >= lower ? passed : 0.0f, below = upper >= lower ? 0.0f : passed;
  const bool first = active.a >= active.b, third = active.c >= active.d;
  return {first ? above : 0.0f, first ? 0.0f : above, third ? below : 0.0f, third ? 0.0f : below};
}

// `lanes` windows of one row, from window `start` of all: the rows of both elements begin at 4 * row * width, and a
// window's elements there at twice its column, which is start - row * width.
template <int lanes>
__device__ void unpool_row(const PoolReluBackward& backward, std::int64_t start) {
  const std::int64_t width = backward.width, row = start / width, top = 2 * start + 2 * row * width;
  const float* active = backward.activation + top;
  float* result = backward.result + top;
  const auto grad = load<lanes>(backward.grad + start);
  Vector<float, lanes> above[2] = {load<lanes>(active), load<lanes>(active + lanes)};
  Vector<float, lanes> below[2] = {load<lanes>(active + 2 * width), load<lanes>(active + 2 * width + lanes)};
#pragma unroll
  for (int i = 0; i < lanes; ++i) {
    const int even = 2 * i, odd = 2 * i + 1;
    float &a = above[even / lanes].values[even % lanes], &b = above[odd / lanes].values[odd % lanes];
    float &c = below[even / lanes].values[even % lanes], &d = below[odd / lanes].values[odd % lanes];
    const Window found = unpool(grad.values[i], {a, b, c, d});
    a = found.a, b = found.b, c = found.c, d = found.d;
  }
  store(result, above[0]);
  store(result + lanes, above[1]);
  store(result + 2 * width, below[0]);
  store(result + 2 * width + lanes, below[1]);
}

template <int lanes>
__global__ void __launch_bounds__(block_threads) unpool_all(const __grid_constant__ PoolReluBackward backward) {
  const std::int64_t vectors = backward.planes * backward.height * backward.width / lanes;
  for (std::int64_t i = thread_in_grid(); i < vectors; i += threads_of_grid()) unpool_row<lanes>(backward, i * lanes);
}

template <int lanes>
cudaError_t launch_lanes(const ClipBackward& backward, cudaStream_t stream) {
  return start(clip_all<lanes>, dim3(blocks(parts(backward.count, lanes * block_threads))), stream, backward);
}

template <int lanes>
cudaError_t launch_lanes(const PoolReluBackward& backward, cudaStream_t stream) {
  const std::int64_t windows = backward.planes * backward.height * backward.width;
  return start(unpool_all<lanes>, dim3(blocks(parts(windows, lanes * block_threads))), stream, backward);
}

template <typename Backward>
bool is_wide(const Backward& backward) {
  return is_aligned(backward.grad) && is_aligned(backward.activation) && is_aligned(backward.result);
}

}  // namespace

cudaError_t launch(const ClipBackward& backward, cudaStream_t stream) {
  return is_wide(backward) ? launch_lanes<4>(backward, stream) : launch_lanes<1>(backward, stream);
}

cudaError_t launch(const PoolReluBackward& backward, cudaStream_t stream) {
  // A vector of windows then lies in one row, and is as long as a row's whole vectors.
  const bool wide = is_wide(backward) && backward.width % 4 == 0;
  return wide ? launch_lanes<4>(backward, stream) : launch_lanes<1>(backward, stream);
}

}  // namespace salience::kernels
