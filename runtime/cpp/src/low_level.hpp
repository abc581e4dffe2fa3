// What follows the descent of `cgd`: from the change of the picture to its map (Clamped descent, sec. 3.1-3.3).
//
// The raw map is what the descent took away; superpixels smooth it, and a low-level map of their LAB colours refines
// it. float64 and float32 stand where the Python package has them, so that both give the same maps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "presets.hpp"
#include "superpixels.hpp"

namespace salience {

// (n, n) float64, row by row.
struct SquareMatrix {
  std::size_t side = 0;
  std::vector<double> values;

  std::span<const double> row(std::size_t i) const { return std::span(values).subspan(i * side, side); }
};

// Algorithm 1 after its loop, at the size of the network's input: a map (h, w) in [0, 1], its largest value 1; 0
// everywhere if nothing changed, or all of it alike.
//
// start: (3, h, w) RGB, 0 to 255: X0, the network's input. end: (3, h, w): XT. Throws Error if a size or a parameter
// is not possible, or a value is not finite.
std::vector<float> saliency_map(std::span<const float> start, std::span<const float> end, std::size_t height,
                                std::size_t width, const Refinement& refinement);

// What the descent took away, averaged over RGB, floored at theta, of unit L2 norm (sec. 3.1): (h, w), at least 0; 0
// everywhere if nothing is left. Arguments and errors are those of `saliency_map`.
std::vector<float> raw_map(std::span<const float> start, std::span<const float> end, std::size_t height,
                           std::size_t width, const Refinement& refinement);

// The raw map (h, w) smoothed, refined, pruned and divided by its maximum, by a picture (h, w, 3) uint8 RGB. Throws
// Error if a size or a parameter is not possible.
std::vector<float> refine_map(std::span<const float> raw, std::span<const std::uint8_t> image, std::size_t height,
                              std::size_t width, const Refinement& refinement);

// S_L of each superpixel, (n,) in [0, 1]: norm(contrast') * exp(-3 norm(V)). High where a colour is far from the
// others and in one place; 0 everywhere if no superpixel stands out. Throws Error for more than 8192 superpixels, since
// it compares every two.
std::vector<double> low_level(const Superpixels& regions, double sigma);

// w_ij = exp(-d_ij^2 / 2 sigma^2) with rows summing to 1, of distances in LAB.
SquareMatrix similarities(const SquareMatrix& distances, double sigma);

// V_i = sum_j w_ij |p_j - mu_i|^2 around mu_i = sum_j w_ij p_j, (n,): how far a colour is scattered. Throws Error
// unless there is a position (row, column) for every row of the matrix.
std::vector<double> spread(std::span<const std::array<double, 2>> positions, const SquareMatrix& similarity);

// S_L stretched to [alpha, 1 + alpha], what the smoothed map is multiplied by (eq. 6). Where S_L is constant it says
// nothing, and the weights are 1 + alpha.
std::vector<double> weights(std::span<const double> low, double alpha);

}  // namespace salience
