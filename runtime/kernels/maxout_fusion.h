// Maxout fusion: sigmoid, weights and maximum in one pass (MultiS, eq. 2); the operator `salience::MaxoutFusion`.
#pragma once

#include <cstdint>

#include "threads.h"

namespace salience::kernels {

// fused[n, p] = max over k of weights[n, k] * sigmoid(maps[k][n, p]).
//
// maps:    `scales` logits (batch, pixels), 1 to `most_scales`
// weights: (batch, scales) in [0, 1]
// fused:   (batch, pixels), written; may be one of the maps
//
// All contiguous, of one type, float or Half.
template <typename Value>
struct MaxoutFusion {
  static constexpr std::int64_t most_scales = 8;

  const Value* maps[most_scales];
  const Value* weights;
  Value* fused;
  std::int64_t batch, scales, pixels;
};

}  // namespace salience::kernels
