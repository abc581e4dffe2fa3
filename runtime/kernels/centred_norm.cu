#include "launch.h"
#include "row_sums.cuh"

namespace salience::kernels {
namespace {

struct Equally {
  static constexpr int weightings = 1, constant_rows = 0;

  template <int lanes>
  __device__ void weigh(std::int64_t, Vector<float, lanes> (&weights)[weightings]) const {
#pragma unroll
    for (int i = 0; i < lanes; ++i) weights[0].values[i] = 1.0f;
  }
};

// A thread for each row: sums (batch, parts, rank) to means (batch, rank).
__global__ void __launch_bounds__(block_threads)
    find_means(const float* sums, float* means, std::int64_t batch, std::int64_t rank, std::int64_t pixels) {
  const std::int64_t all_parts = parts(pixels, pixels_together);
  for (std::int64_t i = thread_in_grid(); i < batch * rank; i += threads_of_grid()) {
    const std::int64_t n = i / rank, r = i % rank;
    double total = 0.0;
    for (std::int64_t part = 0; part < all_parts; ++part) total += sums[(n * all_parts + part) * rank + r];
    means[i] = static_cast<float>(total / static_cast<double>(pixels));
  }
}

// Rows that a warp asks for before it writes the first, which may be in the same place.
constexpr int rows_at_once = 4;

// This warp's part of the squares of the thread's pixels, whose rows are moved by their means on the way.
template <int lanes>
__device__ Vector<float, lanes> move_rows(const float* rows, float* centred, const float* means, std::int64_t rank,
                                          std::int64_t pixels) {
  Vector<float, lanes> squares{}, values[rows_at_once];
  for (std::int64_t first = warp_of_thread(); first < rank; first += rows_at_once * block_warps) {
#pragma unroll
    for (int row = 0; row < rows_at_once; ++row) {
      const std::int64_t r = first + row * block_warps;
      if (r < rank) values[row] = load<lanes>(rows + r * pixels);
    }
#pragma unroll
    for (int row = 0; row < rows_at_once; ++row) {
      const std::int64_t r = first + row * block_warps;
      if (r >= rank) break;
      const float mean = means[r];
#pragma unroll
      for (int i = 0; i < lanes; ++i) {
        const float value = values[row].values[i] - mean;
        values[row].values[i] = value;
        squares.values[i] += value * value;
      }
      store(centred + r * pixels, values[row]);
    }
  }
  return squares;
}

template <int lanes>
__device__ void centre_tile(const CentredNorm& centre, const TilePlace& tile) {
  const std::int64_t rank = centre.rank, pixels = centre.pixels, first = tile.start + lane_of_thread() * lanes;
  Vector<float, lanes> squares{};
  if (first < pixels) {
    const std::int64_t place = tile.n * rank * pixels + first;
    squares = move_rows<lanes>(centre.rows + place, centre.centred + place, centre.means + tile.n * rank, rank, pixels);
  }
  const float norm = sum_warps(squares);
  const std::int64_t pixel = tile.start + threadIdx.x;
  if (threadIdx.x < tile_pixels<lanes> && pixel < pixels) centre.norm[tile.n * pixels + pixel] = norm;
}

template <int lanes>
__global__ void __launch_bounds__(block_threads) centre_all(const __grid_constant__ CentredNorm centre) {
  const std::int64_t tiles = parts(centre.pixels, tile_pixels<lanes>);
  for (std::int64_t i = blockIdx.x; i < centre.batch * tiles; i += gridDim.x) {
    centre_tile<lanes>(centre, tile_place<lanes>(i, centre.pixels));
  }
}

// The scratch: means (batch, rank), sums.
template <int lanes>
cudaError_t launch_lanes(const CentredNorm& centre, cudaStream_t stream) {
  const std::int64_t batch = centre.batch, rank = centre.rank, pixels = centre.pixels;
  const RowSums sums{centre.rows, centre.means + batch * rank, batch, rank, pixels};
  cudaError_t status = launch_row_sums<lanes>(sums, Equally{}, stream);
  if (status != cudaSuccess) return status;
  status = start(find_means, dim3(blocks(parts(batch * rank, block_threads))), stream,
                 static_cast<const float*>(sums.found), centre.means, batch, rank, pixels);
  if (status != cudaSuccess) return status;
  return start(centre_all<lanes>, dim3(blocks(batch * parts(pixels, tile_pixels<lanes>))), stream, centre);
}

}  // namespace

std::size_t centred_norm_scratch_bytes(std::int64_t batch, std::int64_t rank, std::int64_t pixels) {
  return static_cast<std::size_t>(batch * rank + row_sums_size(batch, rank, pixels, 1)) * sizeof(float);
}

cudaError_t launch(const CentredNorm& centre, cudaStream_t stream) {
  const bool wide = is_aligned(centre.rows) && is_aligned(centre.centred) && centre.pixels % 4 == 0;
  return wide ? launch_lanes<4>(centre, stream) : launch_lanes<1>(centre, stream);
}

}  // namespace salience::kernels
