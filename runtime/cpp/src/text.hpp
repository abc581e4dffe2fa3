// Pieces of messages, worded as the Python package words them.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace salience {

std::string joined(std::span<const std::string> parts, std::string_view separator = ", ");

// In one line: control characters, which a name in a hostile file may hold, as escapes.
std::string printable(std::string_view text);

// In quotes, printable: single ones, unless the text holds these and no double ones.
std::string in_quotes(std::string_view text);

// The shortest of fixed and scientific notation with six digits, "nan" and "inf" without a sign for the former.
std::string general(double number);

// As a tuple: (1, 3), and (3,) for one.
std::string shape_text(std::span<const std::int64_t> shape);

std::string first_line(const std::exception& error);

std::string path_text(const std::filesystem::path& path);

std::string folded(std::string_view text);  // ASCII letters in lower case

std::string stripped(std::string_view text);  // without white space at both ends

// Whether it is one or more of 0 to 9.
bool is_decimal(std::string_view text);

}  // namespace salience
