// A bundle is what its manifest says, or an error of one sentence that says what is not.
#include "bundle.hpp"

#include <string>

#include "check.hpp"
#include "folder.hpp"
#include "manifest_text.hpp"
#include "salience/errors.hpp"

using namespace salience;
using namespace salience::test;

namespace {

// Of "abc".
constexpr const char* kSha256 = R"("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")";

Members good() {
  return with(manifest(), "files", object({{"saliency.onnx", object(with(file(), "sha256", kSha256))}}));
}

void write(const Folder& folder, const Members& members) {
  folder.write("saliency.onnx", "abc");
  folder.write("manifest.json", object(members));
}

void opens_a_good_one() {
  const Folder folder;
  write(folder, good());
  const Bundle bundle(folder.path());
  CHECK_EQUAL(bundle.graph_file("saliency", "fp32"), folder.path() / "saliency.onnx");
  CHECK_EQUAL(bundle.precisions().front(), "fp32");
  CHECK_THROWS(BundleError, bundle.graph_file("embed", "fp32"), "no graph 'embed'; it has saliency.");
  CHECK_THROWS(
      BundleError, bundle.graph_file("saliency", "int8"),
      "saliency has no int8 file, only fp32; build it with: python export/build_engine.py multis --precision int8");
}

void names_what_is_missing() {
  const Folder folder;
  CHECK_THROWS(BundleError, Bundle(folder.path() / "gone"), "no readable manifest.json (No such file or directory)");
  CHECK_THROWS(BundleError, Bundle(folder.path()), "expected a folder made by export/build_engine.py.");
  folder.write("file", "");
  CHECK_THROWS(BundleError, Bundle(folder.path() / "file"), "(Not a directory)");
  std::filesystem::create_directory(folder.path() / "manifest.json");
  CHECK_THROWS(BundleError, Bundle(folder.path()), "(Is a directory)");
}

void refuses_a_huge_manifest() {
  const Folder folder;
  folder.write("manifest.json", "{");
  std::filesystem::resize_file(folder.path() / "manifest.json", std::uintmax_t{1} << 40);
  CHECK_THROWS(BundleError, Bundle(folder.path()), "its manifest is larger than 4 MB.");
}

void refuses_files_that_are_others() {
  const Folder folder;
  write(folder, good());
  folder.write("saliency.onnx", "abd");
  CHECK_THROWS(BundleError, Bundle(folder.path()), "saliency.onnx is damaged (its checksum or size, 3 bytes");
  folder.write("saliency.onnx", "abcd");
  CHECK_THROWS(BundleError, Bundle(folder.path()), "4 bytes, is not the manifest's, 3 bytes)");
  std::filesystem::remove(folder.path() / "saliency.onnx");
  CHECK_THROWS(BundleError, Bundle(folder.path()), "saliency.onnx is missing or a link");
  folder.write("elsewhere", "abc");
  std::filesystem::create_symlink("elsewhere", folder.path() / "saliency.onnx");
  CHECK_THROWS(BundleError, Bundle(folder.path()), "saliency.onnx is missing or a link; copy the whole folder again.");
}

void refuses_a_name_that_ends_early() {
  const Folder folder;
  const std::string entry = object(with(file(), "sha256", kSha256));
  write(folder, with(good(), "files", object({{"saliency.onnx", entry}, {R"(saliency.onnx\u0000)", entry}})));
  CHECK_THROWS(BundleError, Bundle(folder.path()), "saliency.onnx\\x00 is missing or a link");
}

void refuses_files_without_checksum() {
  const Folder folder;
  write(folder, with(good(), "files", "{}"));
  CHECK_THROWS(BundleError, Bundle(folder.path()), "saliency.onnx has no checksum; build the bundle again.");
  write(folder, with(good(), "engines", "[" + object(engine()) + "]"));
  CHECK_THROWS(BundleError, Bundle(folder.path()), "saliency.engine has no checksum");
}

void says_what_does_not_fit() {
  const Folder folder;
  write(folder, with(good(), "method", ""));
  CHECK_THROWS(BundleError, Bundle(folder.path()),
               "its manifest does not fit this version of salience (method: Field required); build the bundle again.");
}

}  // namespace

int main() {
  opens_a_good_one();
  names_what_is_missing();
  refuses_a_huge_manifest();
  refuses_files_that_are_others();
  refuses_a_name_that_ends_early();
  refuses_files_without_checksum();
  says_what_does_not_fit();
  return result();
}
