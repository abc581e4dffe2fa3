#include "methods/lps.hpp"

#include <algorithm>
#include <array>

#include "pictures.hpp"
#include "text.hpp"

namespace salience {

struct PromoterMethod::Pair {
  Prepared prepared;
  std::vector<float> prior;  // (1, 1, h, w)
};

// Two sessions, linked: what `embed` leaves and what `refine` returns stays on the device.
struct PromoterMethod::Loop {
  Loop(const Engine& embed_engine, const Engine& refine_engine, std::int64_t batch)
      : embed(embed_engine, batch), refine(refine_engine, batch) {
    for (const TensorSpec& feature : embed_engine.outputs()) embed.link(feature.name, feature.name, refine);
    refine.link("next_prior", "prior");
    refine.link("next_iteration", "iteration");
  }

  Session embed;
  Session refine;
};

PromoterMethod::PromoterMethod(Service service)
    : Method(std::move(service), std::vector<std::string>{"embed", "refine"}),
      resize_(this->service().environment, this->service().bundle, "prior", "fp32", this->service().host) {}

PromoterMethod::~PromoterMethod() = default;

std::vector<float> PromoterMethod::infer(std::span<const Prepared>) const {
  throw Error(service().bundle.subject() + ": holds " + manifest().method +
              ", which promotes a prior; use promote(image, prior), or on the command line: salience promote.");
}

SaliencyMap PromoterMethod::promote(const Image& image, const Prior& prior, const PromoteOptions& options) const {
  const Pair pair = prepare_pair(image, prior, options.empty);
  return finish(pair.prepared, refine(pair, options.iterations, Keep::kLast).back());
}

std::vector<SaliencyMap> PromoterMethod::promote_steps(const Image& image, const Prior& prior,
                                                       const PromoteOptions& options) const {
  const Pair pair = prepare_pair(image, prior, options.empty);
  std::vector<SaliencyMap> maps;
  for (const std::vector<float>& map : refine(pair, options.iterations, Keep::kAll)) {
    maps.push_back(finish(pair.prepared, map));
  }
  return maps;
}

PromoterMethod::Pair PromoterMethod::prepare_pair(const Image& image, const Prior& prior, EmptyPrior empty) const {
  Prepared prepared = prepare(image);
  const std::vector<float> values = checked_values(prior, service().max_pixels);
  if (empty == EmptyPrior::kError) require_regions(values);
  return {std::move(prepared), stretch(values, prior)};
}

std::vector<float> PromoterMethod::stretch(const std::vector<float>& values, const Prior& prior) const {
  // Resizing rounds, and a region that is empty must not become nearly so.
  const auto [low, high] = std::ranges::minmax(values);
  if (low == high) return std::vector<float>(map_pixels(), low);
  Tensors feeds;
  const Shape shape = {static_cast<std::int64_t>(prior.height), static_cast<std::int64_t>(prior.width)};
  feeds.add("map", view_of(values.data(), shape));
  return floats_of(resize_.run(feeds).take("prior"));
}

std::vector<std::vector<float>> PromoterMethod::refine(const Pair& pair, int iterations, Keep keep) const {
  if (iterations < 1) throw Error("iterations " + std::to_string(iterations) + ": expected at least 1.");
  const auto make = [&](std::int64_t batch) {
    return std::make_unique<Loop>(engine("embed"), engine("refine"), batch);
  };
  const auto loop = loops_.take(1, make);
  loop->embed.feed("input", pair.prepared.tensor, network_shape(1, 3));
  loop->embed.run();
  loop->refine.feed("prior", pair.prior, network_shape(1, 1));
  loop->refine.feed("iteration", std::array<std::int64_t, 1>{0}, {1});
  std::vector<std::vector<float>> maps;
  for (int round = 1; round <= iterations; ++round) {
    loop->refine.run();
    if (keep == Keep::kAll || round == iterations) maps.push_back(loop->refine.read("next_prior"));
  }
  return maps;
}

}  // namespace salience
