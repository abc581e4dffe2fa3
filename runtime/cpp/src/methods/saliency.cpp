#include "methods/saliency.hpp"

namespace salience {

SaliencyMethod::SaliencyMethod(Service service) : Method(std::move(service), std::vector<std::string>{"saliency"}) {}

std::vector<float> SaliencyMethod::infer(std::span<const Prepared> prepared) const {
  const std::vector<float> batch = concatenated(prepared);
  Tensors feeds;
  feeds.add("input", view_of(batch.data(), network_shape(prepared.size(), 3)));
  return floats_of(engine("saliency").run(feeds).take("saliency"));
}

}  // namespace salience
