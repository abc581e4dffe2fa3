#include "device.cuh"
#include "launch.h"

// For one picture n, level, channel c and i = y % stride, the level's elements are contiguous: a matrix with a row for
// each j = x % stride and a column for each of the `area` pixels of the small image. Its transpose, read row by row, is
// every stride-th row of the shuffled image, from row i on. So blocks transpose tiles of that matrix by way of shared
// memory, and both sides are contiguous.

namespace salience::kernels {
namespace {

template <typename Value>
constexpr int tile_elements = 16384 / static_cast<int>(sizeof(Value));

template <typename Value>
struct Level {
  const Value* map;
  std::int64_t area, tiles;
  int stride, columns;  // of a tile; in the last of a matrix there may be fewer
  bool whole;           // a matrix is one tile, and read as it lies there, as a single row
  bool wide;            // rows can be read by 16 bytes
};

template <typename Value>
struct Plan {
  Level<Value> levels[PixelShuffleConcat<Value>::most_levels];
  Value* joined;
  std::int64_t pictures, channels, levels_count, height, width;
  bool wide;  // rows can be written by 16 bytes
};

// A tile: `rows` of `length` elements, `apart` in the map and `pitch` in shared memory.
struct Tile {
  int rows, length, pitch;
  std::int64_t apart;
};

template <typename Value>
__device__ Tile tile_of(const Level<Value>& level, int columns) {
  if (level.whole) return {1, level.stride * columns, columns, 0};
  // An odd pitch spreads a column over the banks.
  return {level.stride, columns, level.columns | 1, level.area};
}

template <int lanes, typename Value>
__device__ void read(const Value* from, const Tile& tile, Value* kept) {
  const int vectors = tile.length / lanes;
  for (int i = static_cast<int>(threadIdx.x); i < tile.rows * vectors; i += block_threads) {
    const int row = i / vectors, column = i % vectors * lanes;
    const auto found = load<lanes>(from + row * tile.apart + column);
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) kept[row * tile.pitch + column + lane] = found.values[lane];
  }
}

// Elements `start` to `start + count` of the transposed matrix; `to` is where its first row goes.
template <int lanes, typename Value>
__device__ void write(const Value* kept, int pitch, int stride, std::int64_t start, int count, std::int64_t width,
                      Value* to) {
  for (int i = static_cast<int>(threadIdx.x) * lanes; i < count; i += block_threads * lanes) {
    int column = i / stride, row = i % stride;
    Vector<Value, lanes> found;
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) {
      found.values[lane] = kept[row * pitch + column];
      row = row + 1 == stride ? 0 : row + 1;
      column += row == 0;
    }
    const std::int64_t place = start + i, y = place / width;
    store(to + y * (stride - 1) * width + place, found);
  }
}

template <typename Value>
__device__ void move_tile(const Plan<Value>& plan, const Level<Value>& level, std::int64_t plane, std::int64_t index,
                          Value* kept) {
  const int stride = level.stride;
  const std::int64_t i = index / level.tiles, first = index % level.tiles * level.columns;
  const std::int64_t left = level.area - first;
  const int columns = left < level.columns ? static_cast<int>(left) : level.columns;
  const Tile tile = tile_of(level, columns);
  const Value* from = level.map + (plane * stride + i) * stride * level.area + first;
  const std::int64_t n = plane / plan.channels, c = plane % plan.channels;
  const std::int64_t channel = (n * plan.levels_count + blockIdx.z) * plan.channels + c;
  Value* to = plan.joined + (channel * plan.height + i) * plan.width;
  if (level.wide) {
    read<widest<Value>>(from, tile, kept);
  } else {
    read<1>(from, tile, kept);
  }
  __syncthreads();
  if (plan.wide) {
    write<widest<Value>>(kept, tile.pitch, stride, first * stride, stride * columns, plan.width, to);
  } else {
    write<1>(kept, tile.pitch, stride, first * stride, stride * columns, plan.width, to);
  }
  __syncthreads();
}

// Tiles of a channel along x, channels of all pictures along y, levels along z.
template <typename Value>
__global__ void __launch_bounds__(block_threads) shuffle_all(const __grid_constant__ Plan<Value> plan) {
  __shared__ Value kept[tile_elements<Value> + most_shuffle_stride];
  const Level<Value>& level = plan.levels[blockIdx.z];
  for (std::int64_t plane = blockIdx.y; plane < plan.pictures * plan.channels; plane += gridDim.y) {
    for (std::int64_t index = blockIdx.x; index < level.stride * level.tiles; index += gridDim.x) {
      move_tile(plan, level, plane, index, kept);
    }
  }
}

// Tiles begin at whole vectors: a matrix has one, or one has a multiple of `lanes` columns. What is read or written at
// once is then in one row if rows are whole vectors, and so is the number of elements of any tile.
template <typename Value>
Level<Value> level_of(const PixelShuffleConcat<Value>& shuffle, std::int64_t k) {
  constexpr std::int64_t lanes = widest<Value>, most = tile_elements<Value>;
  const std::int64_t stride = shuffle.strides[k], area = shuffle.height / stride * (shuffle.width / stride);
  const bool fits = stride * area <= most, whole = fits && area % lanes != 0;
  const std::int64_t columns = fits ? area : most / stride / lanes * lanes;
  const bool wide = is_aligned(shuffle.maps[k]) && (whole ? stride * area : area) % lanes == 0;
  const int few = static_cast<int>(stride), side = static_cast<int>(columns);
  return {shuffle.maps[k], area, parts(area, columns), few, side, whole, wide};
}

template <typename Value>
cudaError_t launch_any(const PixelShuffleConcat<Value>& shuffle, cudaStream_t stream) {
  if (shuffle.height == 0 || shuffle.width == 0) return cudaSuccess;
  Plan<Value> plan{};
  std::int64_t most_tiles = 0;
  for (std::int64_t k = 0; k < shuffle.levels; ++k) {
    if (shuffle.strides[k] > most_shuffle_stride) return cudaErrorInvalidValue;
    plan.levels[k] = level_of(shuffle, k);
    const std::int64_t tiles = plan.levels[k].stride * plan.levels[k].tiles;
    most_tiles = tiles > most_tiles ? tiles : most_tiles;
  }
  plan.joined = shuffle.joined, plan.pictures = shuffle.batch, plan.channels = shuffle.channels;
  plan.levels_count = shuffle.levels, plan.height = shuffle.height, plan.width = shuffle.width;
  plan.wide = is_aligned(shuffle.joined) && shuffle.width % widest<Value> == 0;
  const dim3 grid(blocks(most_tiles), blocks(shuffle.batch * shuffle.channels), blocks(shuffle.levels));
  return start(shuffle_all<Value>, grid, stream, plan);
}

}  // namespace

cudaError_t launch(const PixelShuffleConcat<float>& shuffle, cudaStream_t stream) {
  return launch_any(shuffle, stream);
}

cudaError_t launch(const PixelShuffleConcat<std::uint16_t>& shuffle, cudaStream_t stream) {
  return launch_any(shuffle, stream);
}

}  // namespace salience::kernels
