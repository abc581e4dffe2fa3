// Statistics of maps that come out as NumPy's and scikit-image's do, to the last bit: a threshold decides about every
// pixel near it, and about all of them where a map is constant.
#pragma once

#include <span>
#include <vector>

namespace salience {

// The sum, in pairs as NumPy takes it.
double pairwise_sum(std::span<const double> values);

// The mean of at least one value.
double mean(std::span<const double> values);

// Otsu's threshold of at least one finite value, by a histogram of 256 bins: the centre of the last bin of the weak
// class. The value itself if all are equal or closer to each other than 256 bins can tell apart.
double otsu_threshold(std::span<const double> values);

// Values stretched to [0, 1]; 0 everywhere if they differ by rounding only.
std::vector<double> unit(std::span<const double> values);

}  // namespace salience
