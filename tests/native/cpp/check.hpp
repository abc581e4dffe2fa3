// Checks for tests that are plain programs: each failure is told with its place and values, and `result` is what `main`
// returns.
#pragma once

#include <cmath>
#include <iostream>
#include <string_view>

namespace salience::test {

inline int& failures() {
  static int count = 0;
  return count;
}

inline int result() {
  if (failures() > 0) std::cerr << failures() << " checks failed\n";
  return failures() > 0 ? 1 : 0;
}

template <typename... Parts>
void check(bool holds, const char* file, int line, const char* text, const Parts&... parts) {
  if (holds) return;
  ++failures();
  std::cerr << file << ':' << line << ": " << text;
  ((std::cerr << parts), ...);
  std::cerr << '\n';
}

template <typename Left, typename Right>
void check_equal(const Left& left, const Right& right, const char* file, int line, const char* text) {
  check(left == right, file, line, text, ": ", left, " != ", right);
}

inline void check_near(double left, double right, double tolerance, const char* file, int line, const char* text) {
  check(std::abs(left - right) <= tolerance, file, line, text, ": ", left, " and ", right, " differ by more than ",
        tolerance);
}

// That a call throws `Expected`, with this text in its message.
template <typename Expected, typename Call>
void check_throws(const Call& call, std::string_view message, const char* file, int line, const char* text) {
  try {
    call();
  } catch (const Expected& error) {
    const std::string_view found = error.what();
    check(found.find(message) != std::string_view::npos, file, line, text, ": got \"", found, "\", expected \"",
          message, '"');
    return;
  }
  check(false, file, line, text, ": nothing was thrown, expected \"", message, '"');
}

}  // namespace salience::test

#define CHECK(condition) ::salience::test::check(static_cast<bool>(condition), __FILE__, __LINE__, #condition)
#define CHECK_EQUAL(left, right) ::salience::test::check_equal((left), (right), __FILE__, __LINE__, #left " == " #right)
#define CHECK_NEAR(left, right, tolerance) \
  ::salience::test::check_near((left), (right), (tolerance), __FILE__, __LINE__, #left " ~ " #right)
#define CHECK_THROWS(error, expression, message)                                                             \
  ::salience::test::check_throws<error>([&] { static_cast<void>(expression); }, (message), __FILE__, __LINE__, \
                                        #expression)
