// Run an operator on the GPU: the same structs as on the CPU, with pointers to device memory.
//
// A launch only puts kernels on the stream: it neither allocates nor waits, so that it can be captured into a CUDA
// graph. Sums are in a fixed order: the same input gives the same bits. Pointers are aligned as their type; where they
// and the rows are whole units of 16 bytes, threads read and write as much at once. Sizes are not checked, but those
// that would not fit a kernel give cudaErrorInvalidValue.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "anchor_distance.h"
#include "centred_norm.h"
#include "maxout_fusion.h"
#include "pixel_shuffle_concat.h"
#include "pool_relu_backward.h"

namespace salience::kernels {

// AnchorDistance with the number of the iteration on the device as well: `operation.iteration` is not read, and
// `operation.sums` is of `anchor_distance_scratch_bytes`.
struct AnchorDistanceOnDevice {
  AnchorDistance operation;
  const float* iteration;
};

std::size_t anchor_distance_scratch_bytes(std::int64_t batch, std::int64_t rank, std::int64_t pixels);
// Of `CentredNorm::means`.
std::size_t centred_norm_scratch_bytes(std::int64_t batch, std::int64_t rank, std::int64_t pixels);

// Strides of PixelShuffleConcat on the GPU are at most this.
constexpr std::int64_t most_shuffle_stride = 1024;

cudaError_t launch(const MaxoutFusion<float>& fusion, cudaStream_t stream);
cudaError_t launch(const MaxoutFusion<__half>& fusion, cudaStream_t stream);
cudaError_t launch(const PixelShuffleConcat<float>& shuffle, cudaStream_t stream);
cudaError_t launch(const PixelShuffleConcat<std::uint16_t>& shuffle, cudaStream_t stream);
cudaError_t launch(const ClipBackward& backward, cudaStream_t stream);
cudaError_t launch(const PoolReluBackward& backward, cudaStream_t stream);
cudaError_t launch(const AnchorDistanceOnDevice& distance, cudaStream_t stream);
cudaError_t launch(const CentredNorm& centre, cudaStream_t stream);

}  // namespace salience::kernels
