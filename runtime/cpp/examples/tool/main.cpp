// salience-map: the saliency map of a picture, by any bundle.
#include <cstdlib>
#include <exception>
#include <iostream>
#include <optional>
#include <salience/salience.hpp>
#include <string>
#include <utility>
#include <vector>

#include "pictures.hpp"

namespace {

constexpr const char* kUsage =
    "usage: salience-map BUNDLE PICTURE [--prior MAP] [--class NAME] [--group PICTURE...] OUTPUT\n"
    "  --prior MAP         promote this map (lps)\n"
    "  --class NAME        find the object of this class (cgd)\n"
    "  --group PICTURE...  segment what the picture has in common with these (gicd)\n"
    "  OUTPUT              .png or .pgm\n";

struct Request {
  std::string bundle;
  std::string picture;
  std::string output;
  std::optional<std::string> prior;
  std::optional<std::string> class_name;
  std::vector<std::string> group;
};

// Nothing where the arguments make no sense.
std::optional<Request> parse(const std::vector<std::string>& arguments) {
  if (arguments.size() < 3) return std::nullopt;
  Request request{arguments[0], arguments[1], arguments.back(), {}, {}, {}};
  for (std::size_t at = 2; at + 1 < arguments.size(); ++at) {
    const std::string& option = arguments[at];
    const bool has_value = at + 2 < arguments.size();
    if (option == "--prior" && has_value) {
      request.prior = arguments[++at];
    } else if (option == "--class" && has_value) {
      request.class_name = arguments[++at];
    } else if (option == "--group" && has_value) {
      while (at + 2 < arguments.size() && !arguments[at + 1].starts_with("--"))
        request.group.push_back(arguments[++at]);
    } else {
      return std::nullopt;
    }
  }
  return request;
}

salience::Image view(const Picture& picture) { return {picture.pixels.data(), picture.height, picture.width, 0}; }

salience::SaliencyMap promoted(const salience::Detector& detector, const Picture& picture, const std::string& prior) {
  const Picture map = read_picture(prior, 1);
  std::vector<float> values;
  for (const std::uint8_t level : map.pixels) values.push_back(static_cast<float>(level) / 255.0f);
  return detector.promote(view(picture), {values.data(), map.height, map.width});
}

salience::SaliencyMap grouped(const salience::Detector& detector, const Picture& picture,
                              const std::vector<std::string>& group) {
  std::vector<Picture> others;
  for (const std::string& path : group) others.push_back(read_picture(path, 3));
  std::vector<salience::Image> images = {view(picture)};
  for (const Picture& other : others) images.push_back(view(other));
  return std::move(detector.predict_group(images).front());
}

salience::SaliencyMap map_of(const Request& request) {
  const salience::Detector detector = salience::load(request.bundle);
  const Picture picture = read_picture(request.picture, 3);
  if (request.prior) return promoted(detector, picture, *request.prior);
  if (request.class_name) return detector.locate(view(picture), *request.class_name);
  if (!request.group.empty()) return grouped(detector, picture, request.group);
  return detector.predict(view(picture));
}

}  // namespace

int main(int count, char** values) {
  try {
    const std::optional<Request> request = parse({values + 1, values + count});
    if (!request) {
      std::cerr << kUsage;
      return 2;
    }
    const salience::SaliencyMap map = map_of(*request);
    write_grey(request->output, {map.height(), map.width(), map.grey()});
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return EXIT_FAILURE;
  }
}
