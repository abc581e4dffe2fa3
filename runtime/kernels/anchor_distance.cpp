#include "anchor_distance.h"

#include "variants.h"

namespace salience::kernels::SALIENCE_SET {
namespace {

constexpr std::int64_t block = anchor_distance_block;
// Independent sums of one product, so that additions need not wait for each other.
constexpr std::int64_t lanes = 32;
// Rows of the embedding that are read side by side.
constexpr std::int64_t streams = 8;

// Shares of a picture: sums of s and of 1 - s.
struct Regions {
  double salient = 0.0, other = 0.0;

  bool both() const { return salient > 0.0 && other > 0.0; }
  bool mostly_salient() const { return salient > other; }
};

// What every pixel's embedding is compared with; the second anchor is -ratio times the first.
struct Anchors {
  float ratio, first_square, second_square;
};

Regions regions(const float* salient, std::int64_t pixels) {
  Regions found;
  for (std::int64_t start = 0; start < pixels; start += block) {
    float some[lanes] = {}, others[lanes] = {};
    const std::int64_t stop = smaller(start + block, pixels);
    std::int64_t p = start;
    for (; p + lanes <= stop; p += lanes) {
      for (std::int64_t i = 0; i < lanes; ++i) some[i] += salient[p + i], others[i] += 1.0f - salient[p + i];
    }
    for (; p < stop; ++p) some[0] += salient[p], others[0] += 1.0f - salient[p];
    for (std::int64_t i = 0; i < lanes; ++i) found.salient += some[i], found.other += others[i];
  }
  return found;
}

// sums[r] = row r . weights for `together` rows, which lie `step` apart: as many streams from memory at once.
template <std::int64_t together>
void dot(const float* row, std::int64_t step, const float* weights, std::int64_t count, float* sums) {
  float found[together][lanes] = {};
  std::int64_t p = 0;
  for (; p + lanes <= count; p += lanes) {
    for (std::int64_t r = 0; r < together; ++r) {
      for (std::int64_t i = 0; i < lanes; ++i) found[r][i] += row[r * step + p + i] * weights[p + i];
    }
  }
  for (std::int64_t r = 0; r < together; ++r) {
    for (std::int64_t rest = p; rest < count; ++rest) found[r][0] += row[r * step + rest] * weights[rest];
    sums[r] = 0.0f;
    for (std::int64_t i = 0; i < lanes; ++i) sums[r] += found[r][i];
  }
}

// sums[r] over one block of the region that is the smaller, whose sum is the exacter one.
void sum_block(const AnchorDistance& distance, const float* embedding, const float* salient, bool inverted,
               std::int64_t start, float* sums) {
  const std::int64_t count = smaller(block, distance.pixels - start), step = distance.pixels;
  float weights[block];
  for (std::int64_t p = 0; p < count; ++p) weights[p] = inverted ? 1.0f - salient[start + p] : salient[start + p];
  std::int64_t r = 0;
  for (; r + streams <= distance.rank; r += streams) {
    dot<streams>(embedding + r * step + start, step, weights, count, sums + r);
  }
  for (; r < distance.rank; ++r) dot<1>(embedding + r * step + start, step, weights, count, sums + r);
}

// The first anchor goes to `first` (rank).
Anchors anchors(const Regions& found, const float* sums, std::int64_t blocks, std::int64_t rank, float* first) {
  const double salient = found.salient > 1e-6 ? found.salient : 1e-6, other = found.other > 1e-6 ? found.other : 1e-6;
  const double scale = (found.mostly_salient() ? -1.0 : 1.0) / salient, ratio = salient / other;
  double square = 0.0;
  for (std::int64_t r = 0; r < rank; ++r) {
    double total = 0.0;
    for (std::int64_t index = 0; index < blocks; ++index) total += sums[index * rank + r];
    first[r] = static_cast<float>(total * scale);
    square += static_cast<double>(first[r]) * first[r];
  }
  return {static_cast<float>(ratio), static_cast<float>(square), static_cast<float>(square * ratio * ratio)};
}

// products[p] += sum of anchor[r] * row r at p, for `together` rows.
template <std::int64_t together>
void add_products(const float* row, std::int64_t step, const float* anchor, std::int64_t count, float* products) {
  for (std::int64_t p = 0; p < count; ++p) {
    float sum = products[p];
    for (std::int64_t r = 0; r < together; ++r) sum += anchor[r] * row[r * step + p];
    products[p] = sum;
  }
}

void compare_block(const AnchorDistance& distance, const Anchors& found, const float* first, std::int64_t n,
                   std::int64_t start) {
  const std::int64_t count = smaller(block, distance.pixels - start), offset = n * distance.pixels + start;
  const std::int64_t step = distance.pixels;
  const float* embedding = distance.embedding + n * distance.rank * step + start;
  float products[block] = {};
  std::int64_t r = 0;
  for (; r + streams <= distance.rank; r += streams) {
    add_products<streams>(embedding + r * step, step, first + r, count, products);
  }
  for (; r < distance.rank; ++r) add_products<1>(embedding + r * step, step, first + r, count, products);
  const float *norm = distance.norm + offset, *prior = distance.prior + offset;
  const float t = distance.iteration, share = 1.0f / (t + 1.0f);
  float* next = distance.next + offset;
  SALIENCE_INDEPENDENT
  for (std::int64_t p = 0; p < count; ++p) {
    const float difference = 2.0f * products[p] * (1.0f + found.ratio) + (found.second_square - found.first_square);
    const float squared = norm[p] - 2.0f * products[p] + found.first_square;
    const float sum = __builtin_sqrtf(larger(squared, 0.0f)) + __builtin_sqrtf(larger(squared + difference, 0.0f));
    const float gap = distance.sharpness * difference / larger(sum, 1e-12f);
    next[p] = (t * prior[p] + sigmoid(gap)) * share;
  }
}

void keep(const AnchorDistance& distance, std::int64_t n) {
  const float *prior = distance.prior + n * distance.pixels;
  float* next = distance.next + n * distance.pixels;
  for (std::int64_t p = 0; p < distance.pixels; ++p) next[p] = prior[p];
}

void refine(const AnchorDistance& distance, const Threads& threads, std::int64_t n) {
  const float* salient = distance.salient + n * distance.pixels;
  const Regions found = regions(salient, distance.pixels);
  if (!found.both()) return keep(distance, n);
  const float* embedding = distance.embedding + n * distance.rank * distance.pixels;
  const std::int64_t blocks = (distance.pixels + block - 1) / block;
  threads.each(static_cast<std::size_t>(blocks), [&](std::size_t index) {
    const auto place = static_cast<std::int64_t>(index);
    float* sums = distance.sums + (place + 1) * distance.rank;
    sum_block(distance, embedding, salient, found.mostly_salient(), place * block, sums);
  });
  const Anchors two = anchors(found, distance.sums + distance.rank, blocks, distance.rank, distance.sums);
  // Last blocks first: they are still in the cache.
  threads.each(static_cast<std::size_t>(blocks), [&](std::size_t index) {
    compare_block(distance, two, distance.sums, n, (blocks - 1 - static_cast<std::int64_t>(index)) * block);
  });
}

}  // namespace

void run(const AnchorDistance& distance, const Threads& threads) {
  for (std::int64_t n = 0; n < distance.batch; ++n) refine(distance, threads, n);
}

}  // namespace salience::kernels::SALIENCE_SET
