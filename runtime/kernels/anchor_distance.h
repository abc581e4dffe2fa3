// One iteration of Learning to Promote Saliency Detectors (eq. 3, 5): anchors of the two regions, distances of every
// pixel to both, the next prior; the operator `salience::AnchorDistance`.
#pragma once

#include <cstdint>

#include "threads.h"

namespace salience::kernels {

// With z the embeddings of a picture's pixels, centred, and s what of each is salient, the anchors are
// a1 = sum(s z) / sum(s) and a2 = sum((1 - s) z) / sum(1 - s) = -sum(s z) / sum(1 - s), and
//
// next[p] = (t * prior[p] + sigmoid(sharpness * (d2 - d1))) / (t + 1) with dk = |z[p] - ak|,
//
// where d2 - d1 = (2 z.(a1 - a2) + |a2|^2 - |a1|^2) / (d1 + d2). A picture one of whose regions is empty keeps its
// prior in place of the sigmoid.
//
// embedding: (batch, rank, pixels)
// norm:      (batch, pixels), |z|^2
// salient:   (batch, pixels) in [0, 1], the weights s
// prior:     (batch, pixels)
// next:      (batch, pixels), written; may be prior or salient
// sums:      scratch of `anchor_distance_scratch` floats
struct AnchorDistance {
  const float* embedding;
  const float* norm;
  const float* salient;
  const float* prior;
  float* next;
  float* sums;
  std::int64_t batch, rank, pixels;
  float iteration, sharpness;
};

// Pixels that are gone through together, so that what is summed for them stays in the first-level cache.
constexpr std::int64_t anchor_distance_block = 2048;

constexpr std::int64_t anchor_distance_scratch(std::int64_t rank, std::int64_t pixels) {
  return rank * ((pixels + anchor_distance_block - 1) / anchor_distance_block + 1);
}

}  // namespace salience::kernels
