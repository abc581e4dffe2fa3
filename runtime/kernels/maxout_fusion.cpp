#include "maxout_fusion.h"

#include <algorithm>
#include <cmath>

namespace {

// Pixels whose running maximum stays in the first-level cache while the maps are gone through.
constexpr int64_t kBlock = 1024;

float sigmoid(float logit) { return 1.0f / (1.0f + std::exp(-logit)); }

void fuse_block(const float* const* maps, const float* weights, int64_t scales, int64_t offset, int64_t count,
                float* fused) {
  float largest[kBlock];
  for (int64_t i = 0; i < count; ++i) largest[i] = weights[0] * sigmoid(maps[0][offset + i]);
  for (int64_t k = 1; k < scales; ++k) {
    for (int64_t i = 0; i < count; ++i) {
      largest[i] = std::max(largest[i], weights[k] * sigmoid(maps[k][offset + i]));
    }
  }
  std::copy_n(largest, count, fused + offset);
}

}  // namespace

extern "C" int salience_maxout_fusion_f32(const float* const* maps, const float* weights, int64_t batch,
                                          int64_t scales, int64_t pixels, float* fused) {
  if (!maps || !weights || !fused || batch < 0 || scales < 1 || pixels < 0) return -1;
  if (std::any_of(maps, maps + scales, [](const float* map) { return !map; })) return -1;
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t start = 0; start < pixels; start += kBlock) {
      fuse_block(maps, weights + n * scales, scales, n * pixels + start, std::min(kBlock, pixels - start), fused);
    }
  }
  return 0;
}
