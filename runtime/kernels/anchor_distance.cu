#include "launch.h"
#include "row_sums.cuh"

namespace salience::kernels {
namespace {

constexpr int salient_sum = 0, other_sum = 1;

// A picture's own of the scratch, beside the sums: the first anchor follows.
struct Comparison {
  float ratio, first_square, second_square, usable;
};

// Both regions at once, so that the embedding is read once although it is known only then which is the smaller; the
// row of ones gives the regions' sizes.
struct Regions {
  static constexpr int weightings = 2, constant_rows = 1;

  const float* salient;

  template <int lanes>
  __device__ void weigh(std::int64_t place, Vector<float, lanes> (&weights)[weightings]) const {
    weights[salient_sum] = load<lanes>(salient + place);
#pragma unroll
    for (int i = 0; i < lanes; ++i) weights[other_sum].values[i] = 1.0f - weights[salient_sum].values[i];
  }
};

// One picture's sums: (parts, 2, rank + 1).
struct PictureSums {
  const float* found;
  std::int64_t all_parts, rows;

  __device__ double at(std::int64_t part, int weighting, std::int64_t row) const {
    return found[(part * Regions::weightings + weighting) * rows + row];
  }
};

// Sizes of the two regions, at every thread.
__device__ void region_sizes(const PictureSums& sums, double (&sizes)[2]) {
  __shared__ double kept[2];
  double found[2] = {};
  for (std::int64_t part = threadIdx.x; part < sums.all_parts; part += block_threads) {
    for (int weighting = 0; weighting < 2; ++weighting) found[weighting] += sums.at(part, weighting, sums.rows - 1);
  }
  const double total = sum_block(found);
  if (threadIdx.x < 2) kept[threadIdx.x] = total;
  __syncthreads();
  sizes[0] = kept[0], sizes[1] = kept[1];
}

// The first anchor, of the smaller region's sums, which are the exacter ones: embeddings are centred, so that the
// larger one's are the same with the other sign. Returns at thread 0 its square.
__device__ double find_anchor(const PictureSums& sums, bool mostly_salient, double scale, float* anchor) {
  double square[1] = {};
  for (std::int64_t r = threadIdx.x; r < sums.rows - 1; r += block_threads) {
    double total = 0.0;
    for (std::int64_t part = 0; part < sums.all_parts; ++part) {
      total += sums.at(part, mostly_salient ? other_sum : salient_sum, r);
    }
    const auto value = static_cast<float>(total * scale);
    anchor[r] = value;
    square[0] += static_cast<double>(value) * value;
  }
  return sum_block(square);
}

__device__ double at_least(double value, double least) { return value > least ? value : least; }

// A block for each picture.
__global__ void __launch_bounds__(block_threads)
    find_anchors(const float* found, Comparison* comparisons, float* anchors, std::int64_t batch, std::int64_t rank,
                 std::int64_t all_parts) {
  for (std::int64_t n = blockIdx.x; n < batch; n += gridDim.x) {
    const PictureSums sums{found + n * all_parts * Regions::weightings * (rank + 1), all_parts, rank + 1};
    double sizes[2];
    region_sizes(sums, sizes);
    const bool mostly_salient = sizes[salient_sum] > sizes[other_sum];
    const double salient = at_least(sizes[salient_sum], 1e-6), other = at_least(sizes[other_sum], 1e-6);
    const double scale = (mostly_salient ? -1.0 : 1.0) / salient;
    const double square = find_anchor(sums, mostly_salient, scale, anchors + n * rank);
    if (threadIdx.x != 0) continue;
    const double ratio = salient / other;
    const bool usable = sizes[salient_sum] > 0.0 && sizes[other_sum] > 0.0;
    comparisons[n] = {static_cast<float>(ratio), static_cast<float>(square),
                      static_cast<float>(square * ratio * ratio), usable ? 1.0f : 0.0f};
  }
}

// This warp's part of the products of the first anchor and the embeddings of the thread's pixels.
template <int lanes>
__device__ Vector<float, lanes> multiply(const float* embedding, const float* anchor, std::int64_t rank,
                                         std::int64_t pixels) {
  Vector<float, lanes> products{};
#pragma unroll 8
  for (std::int64_t r = warp_of_thread(); r < rank; r += block_warps) {
    const auto values = load<lanes>(embedding + r * pixels);
    const float weight = anchor[r];
#pragma unroll
    for (int i = 0; i < lanes; ++i) products.values[i] += weight * values.values[i];
  }
  return products;
}

__device__ float likelihood(const Comparison& found, float product, float norm, float sharpness) {
  const float difference = 2.0f * product * (1.0f + found.ratio) + (found.second_square - found.first_square);
  const float squared = norm - 2.0f * product + found.first_square;
  const float distances = sqrtf(larger(squared, 0.0f)) + sqrtf(larger(squared + difference, 0.0f));
  return sigmoid(sharpness * difference / larger(distances, 1e-12f));
}

template <int lanes>
__device__ void compare_tile(const AnchorDistanceOnDevice& distance, const Comparison* comparisons,
                             const float* anchors, const TilePlace& tile) {
  const AnchorDistance& operation = distance.operation;
  const std::int64_t rank = operation.rank, pixels = operation.pixels;
  const Comparison found = comparisons[tile.n];
  const std::int64_t first = tile.start + lane_of_thread() * lanes, place = tile.n * pixels + tile.start + threadIdx.x;
  Vector<float, lanes> products{};
  if (found.usable > 0.0f && first < pixels) {
    const float* embedding = operation.embedding + tile.n * rank * pixels + first;
    products = multiply<lanes>(embedding, anchors + tile.n * rank, rank, pixels);
  }
  const float product = sum_warps(products);
  if (threadIdx.x >= tile_pixels<lanes> || tile.start + threadIdx.x >= pixels) return;
  const float prior = operation.prior[place], t = *distance.iteration;
  const float likely = likelihood(found, product, operation.norm[place], operation.sharpness);
  operation.next[place] = found.usable > 0.0f ? (t * prior + likely) / (t + 1.0f) : prior;
}

template <int lanes>
__global__ void __launch_bounds__(block_threads)
    compare(const __grid_constant__ AnchorDistanceOnDevice distance, const Comparison* comparisons,
            const float* anchors) {
  const std::int64_t pixels = distance.operation.pixels, tiles = parts(pixels, tile_pixels<lanes>);
  for (std::int64_t i = blockIdx.x; i < distance.operation.batch * tiles; i += gridDim.x) {
    compare_tile<lanes>(distance, comparisons, anchors, tile_place<lanes>(i, pixels));
  }
}

// The scratch: comparisons (batch), anchors (batch, rank), sums.
template <int lanes>
cudaError_t launch_lanes(const AnchorDistanceOnDevice& distance, cudaStream_t stream) {
  const AnchorDistance& operation = distance.operation;
  const std::int64_t batch = operation.batch, rank = operation.rank, pixels = operation.pixels;
  auto* comparisons = reinterpret_cast<Comparison*>(operation.sums);
  float* anchors = reinterpret_cast<float*>(comparisons + batch);
  const RowSums sums{operation.embedding, anchors + batch * rank, batch, rank, pixels};
  cudaError_t status = launch_row_sums<lanes>(sums, Regions{operation.salient}, stream);
  if (status != cudaSuccess) return status;
  status = start(find_anchors, dim3(blocks(batch)), stream, static_cast<const float*>(sums.found), comparisons, anchors,
                 batch, rank, parts(pixels, pixels_together));
  if (status != cudaSuccess) return status;
  const dim3 grid(blocks(batch * parts(pixels, tile_pixels<lanes>)));
  return start(compare<lanes>, grid, stream, distance, static_cast<const Comparison*>(comparisons),
               static_cast<const float*>(anchors));
}

}  // namespace

std::size_t anchor_distance_scratch_bytes(std::int64_t batch, std::int64_t rank, std::int64_t pixels) {
  const std::int64_t sums = row_sums_size(batch, rank + Regions::constant_rows, pixels, Regions::weightings);
  return static_cast<std::size_t>(batch) * sizeof(Comparison) +
         static_cast<std::size_t>(batch * rank + sums) * sizeof(float);
}

cudaError_t launch(const AnchorDistanceOnDevice& distance, cudaStream_t stream) {
  const AnchorDistance& operation = distance.operation;
  const bool wide = is_aligned(operation.embedding) && is_aligned(operation.salient) && operation.pixels % 4 == 0;
  return wide ? launch_lanes<4>(distance, stream) : launch_lanes<1>(distance, stream);
}

}  // namespace salience::kernels
