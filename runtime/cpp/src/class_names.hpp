// The classes that a user may name.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "salience/salience.hpp"

namespace salience {

// The number of a class given by number, by name, or by one of a name's synonyms, which commas part; nothing for the
// class that the classifier sees. A text that is both a name and a number is the name.
// Throws Error where there is none, or several; the message names some that look alike.
std::optional<std::size_t> class_index(std::span<const std::string> names, const Target& target);

}  // namespace salience
