// Sums over the pixels of rows (batch, rank, pixels), and over the rows at a pixel: each is read once, by all blocks.
#pragma once

#include "device.cuh"

namespace salience::kernels {

// Rows that a block goes through side by side, so that many reads are under way at once, and as many of their pixels.
constexpr int rows_together = 8;
constexpr std::int64_t pixels_together = 2048;

// Weighted sums of rows, by parts of `pixels_together` pixels: `found` (batch, parts, weightings, total rows) floats.
struct RowSums {
  const float* rows;
  float* found;
  std::int64_t batch, rank, pixels;
};

// What of a row a block sums: row group, part, picture.
struct Portion {
  std::int64_t first_row, part, n;
};

// `Weigh` has: `weightings`, how many sums a row has; `constant_rows`, how many rows of ones follow the others; and
// weigh<lanes>(place, weights), the weights of the `lanes` pixels at `place` = n * pixels + pixel, of each weighting.
template <int lanes, typename Weigh>
__device__ Vector<float, lanes> row_vector(const RowSums& sums, const Portion& portion, int row, std::int64_t pixel) {
  const std::int64_t r = portion.first_row + row;
  if (r < sums.rank) return load<lanes>(sums.rows + (portion.n * sums.rank + r) * sums.pixels + pixel);
  Vector<float, lanes> constant;
#pragma unroll
  for (int i = 0; i < lanes; ++i) constant.values[i] = r < sums.rank + Weigh::constant_rows ? 1.0f : 0.0f;
  return constant;
}

template <int lanes, typename Weigh>
__device__ void sum_portion(const RowSums& sums, const Weigh& weigh, const Portion& portion) {
  constexpr int weightings = Weigh::weightings, count = rows_together * weightings;
  float found[count] = {};
  const std::int64_t start = portion.part * pixels_together, end = start + pixels_together;
  const std::int64_t stop = end < sums.pixels ? end : sums.pixels;
  for (std::int64_t pixel = start + threadIdx.x * lanes; pixel < stop; pixel += block_threads * lanes) {
    Vector<float, lanes> weights[weightings], values[rows_together];
    weigh.template weigh<lanes>(portion.n * sums.pixels + pixel, weights);
#pragma unroll
    for (int row = 0; row < rows_together; ++row) values[row] = row_vector<lanes, Weigh>(sums, portion, row, pixel);
#pragma unroll
    for (int i = 0; i < count * lanes; ++i) {
      const int sum = i / lanes, lane = i % lanes;
      found[sum] += values[sum / weightings].values[lane] * weights[sum % weightings].values[lane];
    }
  }
  const float total = sum_block(found);
  const std::int64_t rows = sums.rank + Weigh::constant_rows, weighting = threadIdx.x % weightings;
  const std::int64_t row = portion.first_row + threadIdx.x / weightings;
  if (threadIdx.x >= count || row >= rows) return;
  const std::int64_t all_parts = parts(sums.pixels, pixels_together);
  sums.found[((portion.n * all_parts + portion.part) * weightings + weighting) * rows + row] = total;
}

// Parts come one after the other, so that the last ones are still in the cache for whoever reads them first next.
template <int lanes, typename Weigh>
__global__ void __launch_bounds__(block_threads) sum_rows(const RowSums sums, const Weigh weigh) {
  const std::int64_t groups = parts(sums.rank + Weigh::constant_rows, rows_together);
  const std::int64_t all_parts = parts(sums.pixels, pixels_together);
  for (std::int64_t i = blockIdx.x; i < groups * all_parts * sums.batch; i += gridDim.x) {
    const std::int64_t column = i / groups;
    sum_portion<lanes>(sums, weigh, {i % groups * rows_together, column % all_parts, column / all_parts});
  }
}

template <int lanes, typename Weigh>
cudaError_t launch_row_sums(const RowSums& sums, const Weigh& weigh, cudaStream_t stream) {
  const std::int64_t groups = parts(sums.rank + Weigh::constant_rows, rows_together);
  const dim3 grid(blocks(groups * parts(sums.pixels, pixels_together) * sums.batch));
  return start(sum_rows<lanes, Weigh>, grid, stream, sums, weigh);
}

// Floats of `RowSums::found`.
constexpr std::int64_t row_sums_size(std::int64_t batch, std::int64_t total_rows, std::int64_t pixels, int weightings) {
  return batch * parts(pixels, pixels_together) * weightings * total_rows;
}

// The warps of a block share the rows at `warp_threads * lanes` pixels, `lanes` of them to a thread.
template <int lanes>
constexpr int tile_pixels = warp_threads * lanes;

// The tile of block-stride index i, the last of a picture first, and this thread's first pixel of it.
struct TilePlace {
  std::int64_t n, start;
};

template <int lanes>
__device__ TilePlace tile_place(std::int64_t i, std::int64_t pixels) {
  const std::int64_t tiles = parts(pixels, tile_pixels<lanes>);
  return {i / tiles, (tiles - 1 - i % tiles) * tile_pixels<lanes>};
}

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % warp_threads; }
__device__ inline int warp_of_thread() { return static_cast<int>(threadIdx.x) / warp_threads; }

// The sums over the warps, of what each found at the tile's pixels: that of pixel i is at thread i. Every thread must
// call it.
template <int lanes>
__device__ float sum_warps(const Vector<float, lanes>& found) {
  __shared__ float all[block_warps][tile_pixels<lanes>];
#pragma unroll
  for (int i = 0; i < lanes; ++i) all[warp_of_thread()][lane_of_thread() * lanes + i] = found.values[i];
  __syncthreads();
  float total = 0.0f;
  if (threadIdx.x < tile_pixels<lanes>) {
    for (int warp = 0; warp < block_warps; ++warp) total += all[warp][threadIdx.x];
  }
  __syncthreads();
  return total;
}

}  // namespace salience::kernels
