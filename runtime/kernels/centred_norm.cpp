#include "centred_norm.h"

#include "variants.h"

namespace salience::kernels::SALIENCE_SET {
namespace {

// Pixels whose sum of squares stays in the first-level cache.
constexpr std::int64_t block = 2048;
// Independent sums, so that additions need not wait for each other.
constexpr std::int64_t lanes = 64;
// Rows that are gone through side by side.
constexpr std::int64_t streams = 4;

float mean(const float* row, std::int64_t count) {
  double total = 0.0;
  for (std::int64_t start = 0; start < count; start += block) {
    float sums[lanes] = {};
    const std::int64_t stop = smaller(start + block, count);
    std::int64_t p = start;
    for (; p + lanes <= stop; p += lanes) {
      for (std::int64_t i = 0; i < lanes; ++i) sums[i] += row[p + i];
    }
    for (; p < stop; ++p) sums[0] += row[p];
    for (std::int64_t i = 0; i < lanes; ++i) total += sums[i];
  }
  return static_cast<float>(total / static_cast<double>(count));
}

// squares[p] += the squares of `together` rows, which are moved by their means on the way.
template <std::int64_t together>
void centre_rows(const float* rows, float* centred, std::int64_t step, const float* means, std::int64_t count,
                 float* squares) {
  SALIENCE_INDEPENDENT
  for (std::int64_t p = 0; p < count; ++p) {
    float sum = squares[p];
    for (std::int64_t r = 0; r < together; ++r) {
      const float value = rows[r * step + p] - means[r];
      centred[r * step + p] = value;
      sum += value * value;
    }
    squares[p] = sum;
  }
}

void centre_block(const CentredNorm& centre, std::int64_t n, std::int64_t start) {
  const std::int64_t count = smaller(block, centre.pixels - start);
  const std::int64_t step = centre.pixels, offset = n * centre.rank * step + start;
  const float* rows = centre.rows + offset;
  float* centred = centre.centred + offset;
  float squares[block] = {};
  std::int64_t r = 0;
  for (; r + streams <= centre.rank; r += streams) {
    centre_rows<streams>(rows + r * step, centred + r * step, step, centre.means + r, count, squares);
  }
  for (; r < centre.rank; ++r) {
    centre_rows<1>(rows + r * step, centred + r * step, step, centre.means + r, count, squares);
  }
  float* norm = centre.norm + n * centre.pixels + start;
  for (std::int64_t p = 0; p < count; ++p) norm[p] = squares[p];
}

}  // namespace

void run(const CentredNorm& centre, const Threads& threads) {
  const std::int64_t blocks = (centre.pixels + block - 1) / block;
  for (std::int64_t n = 0; n < centre.batch; ++n) {
    threads.each(static_cast<std::size_t>(centre.rank), [&](std::size_t r) {
      const auto row = static_cast<std::int64_t>(r);
      centre.means[row] = mean(centre.rows + (n * centre.rank + row) * centre.pixels, centre.pixels);
    });
    threads.each(static_cast<std::size_t>(blocks), [&](std::size_t index) {
      centre_block(centre, n, static_cast<std::int64_t>(index) * block);
    });
  }
}

}  // namespace salience::kernels::SALIENCE_SET
