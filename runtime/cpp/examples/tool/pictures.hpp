// Pictures in files: PPM and PGM always, JPEG, PNG and others where stb is there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

struct Picture {
  std::size_t height = 0;
  std::size_t width = 0;
  std::vector<std::uint8_t> pixels;  // (height, width, channels)
};

// With 3 channels, RGB, or 1, grey. Throws salience::ImageError where the file is no such picture.
Picture read_picture(const std::filesystem::path& path, int channels);

// A grey picture as .png or .pgm. Throws salience::ImageError where it cannot be written.
void write_grey(const std::filesystem::path& path, const Picture& picture);
