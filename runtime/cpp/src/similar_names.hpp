// Names that a misspelt one may have meant.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace salience {

// How alike two texts are, 0 to 1: twice the letters in common over all letters, where those are in common that lie in
// the longest common piece, and in the longest ones left and right of it, and so on (Ratcliff and Metzener, 1988).
double similarity(std::string_view left, std::string_view right);

// At most `count` of the names with a similarity of .6 or more, the most alike first.
std::vector<std::string> similar_names(std::span<const std::string> names, std::string_view text, std::size_t count);

}  // namespace salience
