// A fuzzer's bytes as numbers and text, in turn; zeros where they end.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

namespace salience::fuzz {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

  bool empty() const { return left_ == 0; }

  // Any value of a number's type, by its bits.
  template <typename Number>
  Number number() {
    static_assert(std::is_arithmetic_v<Number>);
    Number found{};
    const std::size_t count = std::min(left_, sizeof(Number));
    if (count > 0) std::memcpy(&found, data_, count);
    data_ += count, left_ -= count;
    return found;
  }

  bool flag() { return number<std::uint8_t>() % 2 == 1; }

  // 0 to `most`.
  std::size_t below(std::size_t most) { return number<std::uint16_t>() % (most + 1); }

  std::string text(std::size_t most) {
    const std::size_t count = std::min(left_, below(most));
    std::string found(reinterpret_cast<const char*>(data_), count);
    data_ += count, left_ -= count;
    return found;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

}  // namespace salience::fuzz
