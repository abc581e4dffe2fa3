#include "pool_relu_backward.h"

#include "variants.h"

namespace salience::kernels::SALIENCE_SET {
namespace {

// Elements of one task.
constexpr std::int64_t block = 1 << 15;

// One row of windows: two rows of the activation and of the result.
void unpool(const float* grad, const float* top, const float* bottom, std::int64_t width, float* above, float* below) {
  SALIENCE_INDEPENDENT
  for (std::int64_t x = 0; x < width; ++x) {
    const float a = top[2 * x], b = top[2 * x + 1], c = bottom[2 * x], d = bottom[2 * x + 1];
    const float upper = larger(a, b), lower = larger(c, d);
    const float passed = larger(upper, lower) > 0.0f ? grad[x] : 0.0f;
    const float first = upper >= lower ? passed : 0.0f, second = upper >= lower ? 0.0f : passed;
    above[2 * x] = a >= b ? first : 0.0f;
    above[2 * x + 1] = a >= b ? 0.0f : first;
    below[2 * x] = c >= d ? second : 0.0f;
    below[2 * x + 1] = c >= d ? 0.0f : second;
  }
}

}  // namespace

void run(const ClipBackward& backward, const Threads& threads) {
  const float low = backward.low, high = backward.high;
  threads.each(static_cast<std::size_t>((backward.count + block - 1) / block), [&](std::size_t index) {
    const std::int64_t start = static_cast<std::int64_t>(index) * block;
    const std::int64_t count = smaller(block, backward.count - start);
    const float *grad = backward.grad + start, *activation = backward.activation + start;
    float* result = backward.result + start;
    SALIENCE_INDEPENDENT
    for (std::int64_t i = 0; i < count; ++i) {
      const float passed = grad[i], value = activation[i];
      const bool open = static_cast<int>(value > low) & static_cast<int>(value < high);
      result[i] = open ? passed : 0.0f;
    }
  });
}

void run(const PoolReluBackward& backward, const Threads& threads) {
  const std::int64_t height = backward.height, width = backward.width;
  const std::int64_t rows = backward.planes * height;
  if (rows == 0 || width == 0) return;
  const std::int64_t most = block / (4 * width) + 1;
  threads.each(static_cast<std::size_t>((rows + most - 1) / most), [&](std::size_t index) {
    const std::int64_t start = static_cast<std::int64_t>(index) * most;
    for (std::int64_t row = start; row < smaller(start + most, rows); ++row) {
      const float* top = backward.activation + 4 * row * width;
      float* above = backward.result + 4 * row * width;
      unpool(backward.grad + row * width, top, top + 2 * width, width, above, above + 2 * width);
    }
  });
}

}  // namespace salience::kernels::SALIENCE_SET
