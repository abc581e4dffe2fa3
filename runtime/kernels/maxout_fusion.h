// Maxout fusion: sigmoid, weights and maximum in one pass (MultiS, eq. 2); the operator `salience::MaxoutFusion`.
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define SALIENCE_EXPORT __declspec(dllexport)
#else
#define SALIENCE_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// fused[n, p] = max over k of weights[n, k] * sigmoid(maps[k][n, p]).
//
// maps:    `scales` pointers to logits, each (batch, pixels) float32, contiguous
// weights: (batch, scales) float32 in [0, 1]
// fused:   (batch, pixels) float32, written; may be one of the maps
//
// Returns 0, or -1 where a pointer is null or a size is negative, or `scales` is 0; nothing is written then.
SALIENCE_EXPORT int salience_maxout_fusion_f32(const float* const* maps, const float* weights, int64_t batch,
                                               int64_t scales, int64_t pixels, float* fused);

#ifdef __cplusplus
}
#endif
