#include "dispatch.h"

#include "variants.h"

namespace salience::kernels {
namespace {

template <typename Operator>
void choose(const Operator& given, const Threads& threads) {
  static const InstructionSet set = widest_instruction_set();
  switch (set) {
#ifdef SALIENCE_X86
    case InstructionSet::avx512:
      return avx512::run(given, threads);
    case InstructionSet::avx2:
      return avx2::run(given, threads);
#endif
    default:
      return baseline::run(given, threads);
  }
}

}  // namespace

InstructionSet widest_instruction_set() {
#ifdef SALIENCE_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return InstructionSet::avx512;
  }
  // Every CPU with AVX2 has F16C, which not all compilers can ask for.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::avx2;
#endif
  return InstructionSet::baseline;
}

void run(const MaxoutFusion<float>& fusion, const Threads& threads) { choose(fusion, threads); }
void run(const MaxoutFusion<Half>& fusion, const Threads& threads) { choose(fusion, threads); }
void run(const PixelShuffleConcat<float>& shuffle, const Threads& threads) { choose(shuffle, threads); }
void run(const PixelShuffleConcat<std::uint16_t>& shuffle, const Threads& threads) { choose(shuffle, threads); }
void run(const ClipBackward& backward, const Threads& threads) { choose(backward, threads); }
void run(const PoolReluBackward& backward, const Threads& threads) { choose(backward, threads); }
void run(const AnchorDistance& distance, const Threads& threads) { choose(distance, threads); }
void run(const CentredNorm& centre, const Threads& threads) { choose(centre, threads); }

}  // namespace salience::kernels
