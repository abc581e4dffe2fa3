// Exact sums, sizes, and numbers in messages.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "exact_sum.hpp"
#include "salience/errors.hpp"
#include "tensor.hpp"
#include "text.hpp"

using namespace salience;
using namespace salience::test;

namespace {

void sums_are_rounded_once() {
  CHECK_EQUAL(exact_sum(std::vector<float>{}), 0.0);
  const float tiny = std::numeric_limits<float>::denorm_min();
  CHECK_EQUAL(exact_sum(std::vector<float>{1e30f, tiny, -1e30f}), static_cast<double>(tiny));
  // 2^53 + 1 lies half way between two doubles: what is left below it decides, else the even one is taken.
  const float large = std::ldexp(1.0f, 53);
  CHECK_EQUAL(exact_sum(std::vector<float>{large, 1.0f}), std::ldexp(1.0, 53));
  CHECK_EQUAL(exact_sum(std::vector<float>{large, 1.0f, 1e-30f}), std::ldexp(1.0, 53) + 2);
  CHECK_EQUAL(exact_sum(std::vector<float>{-large, -1.0f, -1e-30f}), -std::ldexp(1.0, 53) - 2);
  CHECK(std::isnan(exact_sum(std::vector<float>{1.0f, std::numeric_limits<float>::infinity()})));
}

void sums_do_not_depend_on_the_order() {
  std::mt19937 random(7);
  std::normal_distribution<float> mantissas;
  std::uniform_int_distribution<int> exponents(-60, 60);
  std::vector<float> values(200);
  for (float& value : values) value = std::ldexp(mantissas(random), exponents(random));
  const double expected = exact_sum(values);
  for (int turn = 0; turn < 50; ++turn) {
    std::ranges::shuffle(values, random);
    CHECK_EQUAL(exact_sum(values), expected);
  }
}

void sizes_that_overflow_are_refused() {
  CHECK_EQUAL(count_of({}), std::size_t{1});
  CHECK_EQUAL(count_of({2, 3, 0}), std::size_t{0});
  CHECK_EQUAL(count_of({2, 3}, 4), std::size_t{6});
  const std::int64_t large = std::int64_t{1} << 40;
  CHECK_THROWS(EngineError, count_of({large, large}), "expected sizes that fit in memory");
  CHECK_THROWS(EngineError, count_of({std::int64_t{1} << 46}, 4), "expected sizes that fit in memory");
  CHECK_THROWS(EngineError, count_of({2, -1}), "tensor of shape (2, -1)");
}

void numbers_are_told_as_in_python() {
  CHECK_EQUAL(general(0.5), "0.5");
  CHECK_EQUAL(general(1e-7), "1e-07");
  CHECK_EQUAL(general(255.0), "255");
  CHECK_EQUAL(general(-std::numeric_limits<double>::quiet_NaN()), "nan");
  const Shape one = {3};
  CHECK_EQUAL(shape_text(one), "(3,)");
  CHECK_EQUAL(in_quotes("it's"), "\"it's\"");
  CHECK_EQUAL(in_quotes("a'b\"\n"), "'a\\'b\"\\n'");
  CHECK_EQUAL(path_text("a//b/./c/"), "a/b/c");
}

}  // namespace

int main() {
  sums_are_rounded_once();
  sums_do_not_depend_on_the_order();
  sizes_that_overflow_are_refused();
  numbers_are_told_as_in_python();
  return result();
}
