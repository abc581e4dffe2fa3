#include "sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <vector>

namespace salience {
namespace {

struct Closer {
  void operator()(std::FILE* file) const { std::fclose(file); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

void require(bool done) {
  if (!done) throw std::runtime_error("SHA-256 cannot be computed by this build of OpenSSL.");
}

}  // namespace

std::string sha256_of(const std::filesystem::path& path) {
  const std::unique_ptr<std::FILE, Closer> file(std::fopen(path.c_str(), "rb"));
  if (!file) throw std::system_error(errno, std::generic_category());
  const std::unique_ptr<EVP_MD_CTX, Closer> context(EVP_MD_CTX_new());
  require(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<unsigned char> block(1 << 16);
  while (const std::size_t count = std::fread(block.data(), 1, block.size(), file.get())) {
    require(EVP_DigestUpdate(context.get(), block.data(), count) == 1);
  }
  if (std::ferror(file.get())) throw std::system_error(errno, std::generic_category());
  std::array<unsigned char, 32> digest{};
  require(EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1);
  std::string text;
  for (const unsigned char byte : digest) {
    constexpr char digits[] = "0123456789abcdef";
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

}  // namespace salience
