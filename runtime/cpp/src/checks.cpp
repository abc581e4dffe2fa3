#include "checks.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <string>

#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

// As Python writes a float: the shortest text that reads back as it, with a point or an exponent.
std::string text_of(double value) {
  if (std::isnan(value)) return "nan";
  const double size = std::abs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16) || std::isinf(value);
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);
  return plain && std::isfinite(value) && text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string wanted_text(const Bounds& bounds) {
  struct Sign {
    const char* words;
    double bound;
  };
  std::string text;
  for (const auto& [words, bound] : {Sign{"at least ", bounds.least}, Sign{"above ", bounds.above},
                                     Sign{"at most ", bounds.most}, Sign{"below ", bounds.below}}) {
    if (!std::isfinite(bound)) continue;
    text += (text.empty() ? "" : " and ") + std::string(words) + general(bound);
  }
  return text;
}

bool inside(double value, const Bounds& bounds) {
  return std::isfinite(value) && bounds.least <= value && value <= bounds.most && bounds.above < value &&
         value < bounds.below;
}

[[noreturn]] void refuse(std::string_view name, const std::string& value, const Bounds& bounds) {
  throw Error(std::string(name) + " " + value + ": expected a number " + wanted_text(bounds) + ".");
}

}  // namespace

void check_number(std::string_view name, double value, const Bounds& bounds) {
  if (!inside(value, bounds)) refuse(name, text_of(value), bounds);
}

void check_number(std::string_view name, int value, const Bounds& bounds) {
  if (!inside(value, bounds)) refuse(name, std::to_string(value), bounds);
}

void check_map_size(std::string_view subject, std::size_t got, std::size_t channels, std::size_t height,
                    std::size_t width) {
  const std::string sides = std::to_string(height) + " x " + std::to_string(width);
  if (height < 1 || width < 1 || height > kLongestSide || width > kLongestSide) {
    throw Error(std::string(subject) + ": got " + sides + " pixels, expected sides of 1 to " +
                std::to_string(kLongestSide) + "; resize it.");
  }
  if (got == channels * height * width) return;
  throw Error(std::string(subject) + ": got " + std::to_string(got) + " values, expected " + std::to_string(channels) +
              " x " + sides + "; give the height and width of what is passed.");
}

}  // namespace salience
