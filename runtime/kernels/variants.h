// What each operator's source defines once for every instruction set that it is compiled for.
//
// These sources use nothing of the standard library that the compiler could leave as a function of its own: the linker
// would keep one copy for all, maybe one with instructions that the CPU lacks.
#pragma once

#include "dispatch.h"

#define SALIENCE_VARIANT(set)                                                  \
  namespace salience::kernels::set {                                           \
  void run(const MaxoutFusion<float>& fusion, const Threads& threads);         \
  void run(const MaxoutFusion<Half>& fusion, const Threads& threads);          \
  void run(const PixelShuffleConcat<float>& shuffle, const Threads& threads);  \
  void run(const PixelShuffleConcat<std::uint16_t>& shuffle, const Threads& threads); \
  void run(const ClipBackward& backward, const Threads& threads);              \
  void run(const PoolReluBackward& backward, const Threads& threads);          \
  void run(const AnchorDistance& distance, const Threads& threads);            \
  void run(const CentredNorm& centre, const Threads& threads);                 \
  }

SALIENCE_VARIANT(baseline)
SALIENCE_VARIANT(avx2)
SALIENCE_VARIANT(avx512)

// Before a loop whose result may be one of its inputs, element for element: no turn of it reads what another wrote.
#if defined(__clang__)
#define SALIENCE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SALIENCE_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace {

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }

// exp(x) to within 2 units in the last place, for x in [-87, 88] and clamped beyond; made to be vectorised.
inline float exponential(float x) {
  constexpr float rounding = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + rounding;
  const float whole = shifted - rounding;
  const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float series = 1.9875691500e-4f;
  series = series * rest + 1.3981999507e-3f;
  series = series * rest + 8.3334519073e-3f;
  series = series * rest + 4.1665795894e-2f;
  series = series * rest + 1.6666665459e-1f;
  series = series * rest + 5.0000001201e-1f;
  const float fraction = series * rest * rest + rest + 1.0f;
  const auto exponent = __builtin_bit_cast(std::int32_t, shifted) - __builtin_bit_cast(std::int32_t, rounding);
  return fraction * __builtin_bit_cast(float, (exponent + 127) << 23);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace
