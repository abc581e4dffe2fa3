#include "similar_names.hpp"

#include <algorithm>
#include <utility>

namespace salience {
namespace {

constexpr double kCutoff = 0.6;
// Longer texts are no names, and comparing them takes the product of their lengths.
constexpr std::size_t kLongest = 200;

struct Piece {
  std::size_t left = 0;
  std::size_t right = 0;
  std::size_t length = 0;
};

// The longest common piece, the first in `left` of those, and the first in `right`.
Piece longest_common(std::string_view left, std::string_view right) {
  Piece best;
  std::vector<std::size_t> above(right.size() + 1), row(right.size() + 1);
  for (std::size_t i = 0; i < left.size(); ++i) {
    for (std::size_t j = 0; j < right.size(); ++j) {
      row[j + 1] = left[i] == right[j] ? above[j] + 1 : 0;
      if (row[j + 1] > best.length) best = {i + 1 - row[j + 1], j + 1 - row[j + 1], row[j + 1]};
    }
    std::swap(above, row);
  }
  return best;
}

std::size_t common_letters(std::string_view left, std::string_view right) {
  const Piece piece = longest_common(left, right);
  if (piece.length == 0) return 0;
  return piece.length + common_letters(left.substr(0, piece.left), right.substr(0, piece.right)) +
         common_letters(left.substr(piece.left + piece.length), right.substr(piece.right + piece.length));
}

}  // namespace

double similarity(std::string_view left, std::string_view right) {
  if (left.empty() && right.empty()) return 1;
  return 2.0 * static_cast<double>(common_letters(left, right)) / static_cast<double>(left.size() + right.size());
}

std::vector<std::string> similar_names(std::span<const std::string> names, std::string_view text, std::size_t count) {
  std::vector<std::pair<double, std::string>> found;
  if (text.size() > kLongest) return {};
  for (const std::string& name : names) {
    if (name.size() > kLongest) continue;
    // As the text that is looked for is the second one, its pieces are taken in the names' order.
    const double alike = similarity(name, text);
    if (alike >= kCutoff) found.emplace_back(alike, name);
  }
  std::ranges::sort(found, std::greater<>());
  std::vector<std::string> best;
  for (const auto& [alike, name] : found) {
    if (best.size() < count) best.push_back(name);
  }
  return best;
}

}  // namespace salience
