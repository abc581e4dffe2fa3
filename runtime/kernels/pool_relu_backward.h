// Gradients through ReLU, clipping, and max pooling after ReLU: mask and gradient in one pass; the operators
// `salience::ReluBackward`, `salience::ClipBackward` and `salience::PoolReluBackward`.
#pragma once

#include <cstdint>

#include "threads.h"

namespace salience::kernels {

// result[i] = grad[i] where low < activation[i] < high, else 0: the gradient before a clipping to [low, high], whose
// result is `activation`; with `high` infinite and `low` 0 that of ReLU. `result` may be one of the others.
struct ClipBackward {
  const float* grad;
  const float* activation;
  float* result;
  std::int64_t count;
  float low, high;
};

// The gradient before ReLU and max pooling by 2 x 2, stride 2: it goes to the first of a window's largest elements,
// row by row, as autograd has it, and nowhere where that is not above 0.
//
// grad:       (planes, height, width), of the pooled image
// activation: (planes, 2 height, 2 width), the result of ReLU
// result:     as activation, written; may be activation itself
struct PoolReluBackward {
  const float* grad;
  const float* activation;
  float* result;
  std::int64_t planes, height, width;
};

}  // namespace salience::kernels
