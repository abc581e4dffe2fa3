// Run an operator on the CPU, by the widest instructions it has.
#pragma once

#include "anchor_distance.h"
#include "centred_norm.h"
#include "maxout_fusion.h"
#include "pixel_shuffle_concat.h"
#include "pool_relu_backward.h"
#include "threads.h"

namespace salience::kernels {

__extension__ typedef _Float16 Half;

enum class InstructionSet { baseline, avx2, avx512 };

// The widest that this CPU has and this library was built with.
InstructionSet widest_instruction_set();

// Pointers are to host memory, aligned as their type; sizes are not checked.
void run(const MaxoutFusion<float>& fusion, const Threads& threads);
void run(const MaxoutFusion<Half>& fusion, const Threads& threads);
void run(const PixelShuffleConcat<float>& shuffle, const Threads& threads);
void run(const PixelShuffleConcat<std::uint16_t>& shuffle, const Threads& threads);
void run(const ClipBackward& backward, const Threads& threads);
void run(const PoolReluBackward& backward, const Threads& threads);
void run(const AnchorDistance& distance, const Threads& threads);
void run(const CentredNorm& centre, const Threads& threads);

}  // namespace salience::kernels
