#include "maxout_fusion.h"

#include "variants.h"

namespace salience::kernels::SALIENCE_SET {
namespace {

// Pixels whose running maximum stays in the first-level cache while the maps are gone through.
constexpr std::int64_t block = 2048;

template <typename Value>
void fuse(const MaxoutFusion<Value>& fusion, const Value* weights, std::int64_t start, std::int64_t count) {
  float largest[block];
  for (std::int64_t k = 0; k < fusion.scales; ++k) {
    const Value* __restrict map = fusion.maps[k] + start;
    const auto weight = static_cast<float>(weights[k]);
    if (k == 0) {
      for (std::int64_t i = 0; i < count; ++i) largest[i] = weight * sigmoid(static_cast<float>(map[i]));
    } else {
      for (std::int64_t i = 0; i < count; ++i) {
        largest[i] = larger(largest[i], weight * sigmoid(static_cast<float>(map[i])));
      }
    }
  }
  Value* fused = fusion.fused + start;
  for (std::int64_t i = 0; i < count; ++i) fused[i] = static_cast<Value>(largest[i]);
}

template <typename Value>
void run_any(const MaxoutFusion<Value>& fusion, const Threads& threads) {
  const std::int64_t blocks = (fusion.pixels + block - 1) / block;
  threads.each(static_cast<std::size_t>(fusion.batch * blocks), [&](std::size_t index) {
    const std::int64_t n = static_cast<std::int64_t>(index) / blocks;
    const std::int64_t start = static_cast<std::int64_t>(index) % blocks * block;
    const std::int64_t count = smaller(block, fusion.pixels - start);
    fuse(fusion, fusion.weights + n * fusion.scales, n * fusion.pixels + start, count);
  });
}

}  // namespace

void run(const MaxoutFusion<float>& fusion, const Threads& threads) { run_any(fusion, threads); }
void run(const MaxoutFusion<Half>& fusion, const Threads& threads) { run_any(fusion, threads); }

}  // namespace salience::kernels::SALIENCE_SET
