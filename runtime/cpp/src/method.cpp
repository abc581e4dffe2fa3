#include "method.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "pictures.hpp"
#include "text.hpp"

namespace salience {
namespace {

[[noreturn]] void refuse(const Service& service, const std::string& verb, const std::string& method) {
  throw Error(service.bundle.subject() + ": holds " + service.bundle.manifest().method + ", expected " + method +
              " for " + verb + "; load a bundle of " + method + ", or use another verb, such as predict.");
}

void require_count(std::size_t found, const Shape& expected, const std::string& label) {
  if (found == count_of(expected)) return;
  throw EngineError(label + ": got " + std::to_string(found) + " values, expected those of " + shape_text(expected) +
                    "; build the bundle again.");
}

}  // namespace

Method::Method(Service service, std::span<const std::string> graphs)
    : service_(std::move(service)),
      preprocess_(service_.environment, service_.bundle, "preprocess", "fp32", service_.host),
      postprocess_(service_.environment, service_.bundle, "postprocess", "fp32", service_.host) {
  for (const std::string& graph : graphs) {
    engines_[graph] =
        std::make_unique<Engine>(service_.environment, service_.bundle, graph, service_.precision, service_.options);
  }
  backend_ = engines_.at(graphs.front())->label();
}

std::vector<SaliencyMap> Method::predict_batch(std::span<const Image> images) const {
  std::vector<Prepared> prepared;
  for (const Image& image : images) prepared.push_back(prepare(image));
  if (prepared.empty()) return {};
  const std::vector<float> values = infer(prepared);
  require_count(values.size(), network_shape(prepared.size(), 1), backend_);
  std::vector<SaliencyMap> maps;
  for (const Prepared& each : prepared) {
    maps.push_back(finish(each, std::span(values).subspan(maps.size() * map_pixels(), map_pixels())));
  }
  return maps;
}

std::vector<SaliencyMap> Method::predict_group(std::span<const Image>, const GroupOptions&) const {
  refuse(service_, "predict_group", "gicd");
}

SaliencyMap Method::promote(const Image&, const Prior&, const PromoteOptions&) const {
  refuse(service_, "promote", "lps");
}

std::vector<SaliencyMap> Method::promote_steps(const Image&, const Prior&, const PromoteOptions&) const {
  refuse(service_, "promote_steps", "lps");
}

ObjectMap Method::locate(const Image&, const Target&, const LocateOptions&) const { refuse(service_, "locate", "cgd"); }

Prepared Method::prepare(const Image& image) const {
  check(image, service_.max_pixels);
  std::vector<std::uint8_t> storage;
  const Shape shape = {static_cast<std::int64_t>(image.height), static_cast<std::int64_t>(image.width), 3};
  Tensors feeds;
  feeds.add("image", view_of(packed(image, storage), shape));
  std::vector<float> tensor = floats_of(preprocess_.run(feeds).take("input"));
  require_count(tensor.size(), network_shape(1, 3), preprocess_.label());
  return {image.height, image.width, std::move(tensor)};
}

SaliencyMap Method::finish(const Prepared& prepared, std::span<const float> values) const {
  if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) {
    throw Error(backend_ + ": the map holds NaN or infinity; use another precision or backend.");
  }
  const std::array<std::int64_t, 2> size = {static_cast<std::int64_t>(prepared.height),
                                            static_cast<std::int64_t>(prepared.width)};
  Tensors feeds;
  feeds.add("saliency", view_of(values.data(), network_shape(1, 1)));
  feeds.add("size", view_of(size.data(), {2}));
  return {prepared.height, prepared.width, floats_of(postprocess_.run(feeds).take("map"))};
}

Shape Method::network_shape(std::size_t count, std::int64_t channels) const {
  const auto [height, width] = manifest().input_size;
  return {static_cast<std::int64_t>(count), channels, height, width};
}

std::size_t Method::map_pixels() const { return count_of(network_shape(1, 1)); }

std::vector<float> concatenated(std::span<const Prepared> prepared) {
  std::vector<float> all;
  for (const Prepared& each : prepared) all.insert(all.end(), each.tensor.begin(), each.tensor.end());
  return all;
}

}  // namespace salience
