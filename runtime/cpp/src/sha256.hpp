// SHA-256 of a file.
#pragma once

#include <filesystem>
#include <string>

namespace salience {

// 64 hexadecimal digits. Throws std::system_error where the file cannot be read.
std::string sha256_of(const std::filesystem::path& path);

}  // namespace salience
