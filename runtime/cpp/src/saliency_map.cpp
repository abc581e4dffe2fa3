#include <algorithm>
#include <cmath>
#include <numeric>

#include "components.hpp"
#include "salience/salience.hpp"
#include "text.hpp"

namespace salience {
namespace {

// As in runtime/saliency.py, which says where the values come from.
constexpr double kThresholdShare = 0.5;
constexpr double kLeastThreshold = 0.3;
constexpr double kSpeckShare = 0.05;

}  // namespace

SaliencyMap::SaliencyMap(std::size_t height, std::size_t width, std::vector<float> values)
    : height_(height), width_(width), values_(std::move(values)) {
  if (width == 0 || values_.size() / width != height || values_.size() % width != 0) {
    throw Error("saliency map: got " + std::to_string(values_.size()) + " values, expected " + std::to_string(height) +
                " x " + std::to_string(width) + ", not empty.");
  }
}

std::vector<std::uint8_t> SaliencyMap::grey() const {
  std::vector<std::uint8_t> levels(values_.size());
  std::ranges::transform(values_, levels.begin(), [](float value) {
    return static_cast<std::uint8_t>(std::clamp(std::nearbyint(value * 255.0f), 0.0f, 255.0f));
  });
  return levels;
}

double SaliencyMap::threshold() const {
  return std::max(kThresholdShare * static_cast<double>(*std::ranges::max_element(values_)), kLeastThreshold);
}

std::vector<std::uint8_t> SaliencyMap::mask(std::optional<double> limit) const {
  if (limit && !(*limit >= 0 && *limit <= 1)) {
    throw Error("threshold " + general(*limit) + ": expected a number from 0 to 1.");
  }
  const auto least = static_cast<float>(limit.value_or(threshold()));
  std::vector<std::uint8_t> mask(values_.size());
  std::ranges::transform(values_, mask.begin(), [least](float value) { return value >= least && value > 0 ? 1 : 0; });
  return mask;
}

std::optional<Box> SaliencyMap::box(std::optional<double> limit) const {
  return box_of_components(mask(limit), width_, kSpeckShare);
}

ObjectMap::ObjectMap(SaliencyMap map, std::size_t target, std::vector<float> logits,
                     std::shared_ptr<const std::vector<std::string>> names)
    : SaliencyMap(std::move(map)), target_(target), logits_(std::move(logits)), names_(std::move(names)) {
  if (!names_ || logits_.size() != names_->size() || target_ >= names_->size()) {
    throw Error("object map: got class " + std::to_string(target_) + " of " + std::to_string(logits_.size()) +
                " logits, expected one of as many names as logits.");
  }
}

std::vector<std::pair<std::string, double>> ObjectMap::classes(std::size_t count) const {
  const double largest = static_cast<double>(*std::ranges::max_element(logits_));
  std::vector<double> shares;
  for (const float logit : logits_) shares.push_back(std::exp(static_cast<double>(logit) - largest));
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t left, std::size_t right) { return shares[left] > shares[right]; });
  order.resize(std::min(count, order.size()));
  std::vector<std::pair<std::string, double>> found;
  for (const std::size_t index : order) found.emplace_back((*names_)[index], shares[index] / sum);
  return found;
}

}  // namespace salience
