#include "text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace salience {

std::string joined(std::span<const std::string> parts, std::string_view separator) {
  std::string text;
  for (const std::string& part : parts) {
    if (&part != &parts.front()) text += separator;
    text += part;
  }
  return text;
}

std::string printable(std::string_view text) {
  std::string found;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte >= 0x20 && byte != 0x7f) {
      found += letter;
      continue;
    }
    char escape[8];
    std::snprintf(escape, sizeof escape, letter == '\n' ? "\\n" : "\\x%02x", static_cast<unsigned>(byte));
    found += escape;
  }
  return found;
}

std::string in_quotes(std::string_view text) {
  const bool single = text.find('\'') == std::string_view::npos || text.find('"') != std::string_view::npos;
  const char quote = single ? '\'' : '"';
  std::string found(1, quote);
  for (const char letter : text) {
    if (letter == quote || letter == '\\') found += '\\';
    found += letter;
  }
  return printable(found) + quote;
}

std::string general(double number) {
  if (std::isnan(number)) return "nan";
  char text[40];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(shape[axis]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string first_line(const std::exception& error) {
  const std::string text = stripped(error.what());
  return text.empty() ? "no reason given" : text.substr(0, text.find('\n'));
}

std::string path_text(const std::filesystem::path& path) {
  std::filesystem::path tidy;
  for (const auto& part : path) {
    if (part != "." && !part.empty()) tidy /= part;
  }
  return tidy.empty() ? "." : tidy.string();
}

std::string folded(std::string_view text) {
  std::string found(text);
  std::ranges::transform(found, found.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  return found;
}

std::string stripped(std::string_view text) {
  constexpr std::string_view white = " \t\n\r\f\v";
  const std::size_t start = text.find_first_not_of(white);
  if (start == std::string_view::npos) return "";
  return std::string(text.substr(start, text.find_last_not_of(white) - start + 1));
}

bool is_decimal(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char letter) { return letter >= '0' && letter <= '9'; });
}

}  // namespace salience
