// Classes by name, synonym or number.
#include "class_names.hpp"

#include <string>
#include <vector>

#include "check.hpp"
#include "similar_names.hpp"

using namespace salience;
using namespace salience::test;

namespace {

const std::vector<std::string> kNames = {"tench, Tinca tinca", "Crane", "crane", "7", "timber wolf", "car"};

void finds() {
  CHECK(!class_index(kNames, Target()));
  CHECK_EQUAL(*class_index(kNames, "tinca TINCA"), std::size_t{0});
  CHECK_EQUAL(*class_index(kNames, " timber wolf "), std::size_t{4});
  CHECK_EQUAL(*class_index(kNames, "5"), std::size_t{5});
  // A text that is both a name and a number is the name; a number is not.
  CHECK_EQUAL(*class_index(kNames, "7"), std::size_t{3});
  CHECK_EQUAL(*class_index(kNames, 5), std::size_t{5});
}

void refuses_with_a_hint() {
  CHECK_THROWS(Error, class_index(kNames, "crane"),
               "class 'crane': 2 of that name, expected 0 to 5 or one name; such as: 1, crane | 2, crane.");
  CHECK_THROWS(Error, class_index(kNames, "wolf"),
               "none of that name, expected 0 to 5 or one name; such as: timber wolf.");
  CHECK_THROWS(Error, class_index(kNames, "cart"), "; such as: car.");
  CHECK_THROWS(Error, class_index(kNames, "xyz"), "class 'xyz': none of that name, expected 0 to 5 or one name.");
  CHECK_THROWS(Error, class_index(kNames, 7), "class 7: none of that name");
  CHECK_THROWS(Error, class_index(kNames, -1), "class -1: none of that name");
}

void similarity_counts_common_letters() {
  CHECK_NEAR(similarity("abcd", "bcde"), 0.75, 1e-12);
  CHECK_NEAR(similarity("", ""), 1, 0);
  CHECK_NEAR(similarity("abc", "xyz"), 0, 0);
  // Left and right of the longest piece, "bc".
  CHECK_NEAR(similarity("abcd", "axbcyd"), 0.8, 1e-12);
}

}  // namespace

int main() {
  finds();
  refuses_with_a_hint();
  similarity_counts_common_letters();
  return result();
}
