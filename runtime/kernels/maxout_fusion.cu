#include "device.cuh"
#include "launch.h"

namespace salience::kernels {
namespace {

// `lanes` pixels of picture n, all maps of which are asked for before the first is used.
template <int lanes, typename Value>
__device__ void fuse(const MaxoutFusion<Value>& fusion, std::int64_t n, std::int64_t pixel) {
  constexpr int most = MaxoutFusion<Value>::most_scales;
  const std::int64_t start = n * fusion.pixels + pixel;
  Vector<Value, lanes> logits[most], fused;
  float largest[lanes] = {};
#pragma unroll
  for (int k = 0; k < most; ++k) {
    if (k < fusion.scales) logits[k] = load<lanes>(fusion.maps[k] + start);
  }
#pragma unroll
  for (int k = 0; k < most; ++k) {
    if (k >= fusion.scales) break;
    const auto weight = static_cast<float>(fusion.weights[n * fusion.scales + k]);
#pragma unroll
    for (int i = 0; i < lanes; ++i) {
      const float weighted = weight * sigmoid(static_cast<float>(logits[k].values[i]));
      largest[i] = k == 0 ? weighted : larger(largest[i], weighted);
    }
  }
#pragma unroll
  for (int i = 0; i < lanes; ++i) fused.values[i] = static_cast<Value>(largest[i]);
  store(fusion.fused + start, fused);
}

// Pictures along y, pixels along x.
template <int lanes, typename Value>
__global__ void __launch_bounds__(block_threads) fuse_all(const __grid_constant__ MaxoutFusion<Value> fusion) {
  const std::int64_t vectors = fusion.pixels / lanes;
  for (std::int64_t n = blockIdx.y; n < fusion.batch; n += gridDim.y) {
    for (std::int64_t i = thread_in_grid(); i < vectors; i += threads_of_grid()) fuse<lanes>(fusion, n, i * lanes);
    for (std::int64_t pixel = vectors * lanes + thread_in_grid(); pixel < fusion.pixels; pixel += threads_of_grid()) {
      fuse<1>(fusion, n, pixel);
    }
  }
}

template <typename Value>
bool is_wide(const MaxoutFusion<Value>& fusion) {
  bool wide = is_aligned(fusion.fused) && (fusion.batch == 1 || fusion.pixels % widest<Value> == 0);
  for (std::int64_t k = 0; k < fusion.scales; ++k) wide = wide && is_aligned(fusion.maps[k]);
  return wide;
}

template <int lanes, typename Value>
cudaError_t launch_lanes(const MaxoutFusion<Value>& fusion, cudaStream_t stream) {
  const dim3 grid(blocks(parts(fusion.pixels, lanes * block_threads)), blocks(fusion.batch));
  return start(fuse_all<lanes, Value>, grid, stream, fusion);
}

template <typename Value>
cudaError_t launch_any(const MaxoutFusion<Value>& fusion, cudaStream_t stream) {
  return is_wide(fusion) ? launch_lanes<widest<Value>>(fusion, stream) : launch_lanes<1>(fusion, stream);
}

}  // namespace

cudaError_t launch(const MaxoutFusion<float>& fusion, cudaStream_t stream) { return launch_any(fusion, stream); }
cudaError_t launch(const MaxoutFusion<__half>& fusion, cudaStream_t stream) { return launch_any(fusion, stream); }

}  // namespace salience::kernels
