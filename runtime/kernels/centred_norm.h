// Embeddings moved to their mean, and their squared lengths, in two passes (Learning to Promote Saliency Detectors, what
// its iterations need of a picture); the operator `salience::CentredNorm`.
#pragma once

#include <cstdint>

#include "threads.h"

namespace salience::kernels {

// centred[n, r, p] = rows[n, r, p] - mean over q of rows[n, r, q], and norm[n, p] = sum over r of centred[n, r, p]^2.
//
// rows:    (batch, rank, pixels)
// centred: (batch, rank, pixels), written; may be rows
// norm:    (batch, pixels), written
// means:   scratch of `rank` floats
struct CentredNorm {
  const float* rows;
  float* centred;
  float* norm;
  float* means;
  std::int64_t batch, rank, pixels;
};

}  // namespace salience::kernels
