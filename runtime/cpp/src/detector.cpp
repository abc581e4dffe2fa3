#include "method.hpp"
#include "translated.hpp"

namespace salience {

Detector::Detector(std::unique_ptr<const Method> method) : method_(std::move(method)) {}
Detector::Detector(Detector&&) noexcept = default;
Detector& Detector::operator=(Detector&&) noexcept = default;
Detector::~Detector() = default;

const std::string& Detector::method() const { return method_->manifest().method; }

const std::string& Detector::precision() const { return method_->precision(); }

const std::string& Detector::backend() const { return method_->backend(); }

std::pair<std::size_t, std::size_t> Detector::input_size() const {
  const auto [height, width] = method_->manifest().input_size;
  return {static_cast<std::size_t>(height), static_cast<std::size_t>(width)};
}

const std::vector<std::string>& Detector::classes() const { return method_->manifest().classes; }

SaliencyMap Detector::predict(const Image& image) const { return std::move(predict_batch({&image, 1}).front()); }

std::vector<SaliencyMap> Detector::predict_batch(std::span<const Image> images) const {
  return translated([&] { return method_->predict_batch(images); });
}

std::vector<SaliencyMap> Detector::predict_group(std::span<const Image> images, const GroupOptions& options) const {
  return translated([&] { return method_->predict_group(images, options); });
}

SaliencyMap Detector::promote(const Image& image, const Prior& prior, const PromoteOptions& options) const {
  return translated([&] { return method_->promote(image, prior, options); });
}

std::vector<SaliencyMap> Detector::promote_steps(const Image& image, const Prior& prior,
                                                 const PromoteOptions& options) const {
  return translated([&] { return method_->promote_steps(image, prior, options); });
}

ObjectMap Detector::locate(const Image& image, const Target& target, const LocateOptions& options) const {
  return translated([&] { return method_->locate(image, target, options); });
}

const char* version() noexcept { return SALIENCE_VERSION; }

}  // namespace salience
