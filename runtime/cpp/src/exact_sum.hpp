// Sums that do not depend on the order of their terms.
#pragma once

#include <span>

namespace salience {

// The sum of the values, rounded once (Shewchuk, Adaptive precision floating-point arithmetic, 1997): the double that
// is nearest to the exact sum, an even one where two are. NaN where a value is not finite.
double exact_sum(std::span<const float> values);

}  // namespace salience
