#include "pictures.hpp"

#include <fstream>
#include <limits>
#include <salience/errors.hpp>
#include <string>
#if defined(WITH_STB)
#include <stb_image.h>
#include <stb_image_write.h>

#include <memory>
#endif

namespace {

constexpr std::size_t kMostPixels = 150'000'000;

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& reason) {
  throw salience::ImageError("picture " + path.string() + ": " + reason);
}

std::size_t read_number(std::istream& file, const std::filesystem::path& path) {
  while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  std::size_t number = 0;
  if (!(file >> number)) refuse(path, "its header is damaged, expected width, height and 255; is it whole?");
  return number;
}

bool is_netpbm(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse(path, "cannot be read; is it there?");
  return file.get() == 'P' && (file.peek() == '5' || file.peek() == '6');
}

Picture read_netpbm(const std::filesystem::path& path, int channels) {
  std::ifstream file(path, std::ios::binary);
  file.get();
  const int kind = file.get() == '6' ? 3 : 1;
  if (kind != channels) refuse(path, channels == 3 ? "is PGM, expected PPM." : "is PPM, expected PGM.");
  Picture picture;
  picture.width = read_number(file, path);
  picture.height = read_number(file, path);
  if (read_number(file, path) != 255) refuse(path, "expected values up to 255; save it with 8 bits.");
  file.get();
  if (picture.width == 0 || picture.height == 0 || picture.width > kMostPixels / picture.height) {
    refuse(path, "expected 1 to 150 million pixels; scale it.");
  }
  picture.pixels.resize(picture.width * picture.height * static_cast<std::size_t>(channels));
  file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
  if (!file) refuse(path, "is cut off; copy it again.");
  return picture;
}

Picture read_encoded(const std::filesystem::path& path, int channels) {
#if defined(WITH_STB)
  int width = 0, height = 0, found = 0;
  const bool known = stbi_info(path.c_str(), &width, &height, &found) != 0;
  if (known && static_cast<std::size_t>(width) > kMostPixels / static_cast<std::size_t>(height)) {
    refuse(path, "expected at most 150 million pixels; scale it.");
  }
  const std::unique_ptr<stbi_uc, void (*)(void*)> data(
      known ? stbi_load(path.c_str(), &width, &height, &found, channels) : nullptr, stbi_image_free);
  if (!data) refuse(path, std::string("cannot be decoded (") + stbi_failure_reason() + "); is it whole?");
  const std::size_t size = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  return {static_cast<std::size_t>(height),
          static_cast<std::size_t>(width),
          {data.get(), data.get() + size * static_cast<std::size_t>(channels)}};
#else
  refuse(path, channels == 3 ? "expected PPM, since stb is not built in." : "expected PGM, since stb is not built in.");
#endif
}

void write_pgm(const std::filesystem::path& path, const Picture& picture) {
  std::ofstream file(path, std::ios::binary);
  file << "P5\n" << picture.width << ' ' << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
  file.close();
  if (!file) refuse(path, "cannot be written; is the folder there?");
}

void write_png(const std::filesystem::path& path, const Picture& picture) {
#if defined(WITH_STB)
  const int width = static_cast<int>(picture.width), height = static_cast<int>(picture.height);
  if (stbi_write_png(path.c_str(), width, height, 1, picture.pixels.data(), width) == 0) {
    refuse(path, "cannot be written; is the folder there?");
  }
#else
  static_cast<void>(picture);
  refuse(path, "expected the ending .pgm, since stb is not built in.");
#endif
}

}  // namespace

Picture read_picture(const std::filesystem::path& path, int channels) {
  return is_netpbm(path) ? read_netpbm(path, channels) : read_encoded(path, channels);
}

void write_grey(const std::filesystem::path& path, const Picture& picture) {
  if (path.extension() == ".pgm") {
    write_pgm(path, picture);
  } else if (path.extension() == ".png") {
    write_png(path, picture);
  } else {
    refuse(path, "expected the ending .png or .pgm.");
  }
}
