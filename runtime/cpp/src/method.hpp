// What every method's detector shares: pictures in, saliency maps out, through the bundle's own graphs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "engine.hpp"
#include "salience/salience.hpp"

namespace salience {

// A picture's size, and the network input (1, 3, h, w) float32 made of it.
struct Prepared {
  std::size_t height = 0;
  std::size_t width = 0;
  std::vector<float> tensor;
};

// What a bundle is served with.
struct Service {
  Bundle bundle;
  std::string precision;
  EngineOptions options;
  // Of the graphs before and after the network.
  EngineOptions host;
  std::size_t max_pixels = 0;
  Environment environment;
};

// Serves one bundle; all that is public is safe to call from many threads at once.
class Method {
 public:
  // `graphs` are the method's own.
  Method(Service service, std::span<const std::string> graphs);
  virtual ~Method() = default;
  Method(const Method&) = delete;
  Method& operator=(const Method&) = delete;

  const Manifest& manifest() const { return service_.bundle.manifest(); }
  const std::string& precision() const { return service_.precision; }
  const std::string& backend() const { return backend_; }

  std::vector<SaliencyMap> predict_batch(std::span<const Image> images) const;

  // A method without the verb throws Error, which names those that have it.
  virtual std::vector<SaliencyMap> predict_group(std::span<const Image> images, const GroupOptions& options) const;
  virtual SaliencyMap promote(const Image& image, const Prior& prior, const PromoteOptions& options) const;
  virtual std::vector<SaliencyMap> promote_steps(const Image& image, const Prior& prior,
                                                 const PromoteOptions& options) const;
  virtual ObjectMap locate(const Image& image, const Target& target, const LocateOptions& options) const;

 protected:
  // Maps (N, 1, h, w) float32 in [0, 1] at the network's size, of N prepared pictures.
  virtual std::vector<float> infer(std::span<const Prepared> prepared) const = 0;

  const Service& service() const { return service_; }
  const Engine& engine(const std::string& graph) const { return *engines_.at(graph); }
  // Bring one picture to the network's input.
  Prepared prepare(const Image& image) const;
  // Bring one map (h, w) of the network's size to its picture's size.
  SaliencyMap finish(const Prepared& prepared, std::span<const float> values) const;

  // (N, channels, h, w) of the network's size.
  Shape network_shape(std::size_t count, std::int64_t channels) const;
  // Of one map at the network's size.
  std::size_t map_pixels() const;

 private:
  Service service_;
  std::map<std::string, std::unique_ptr<Engine>> engines_;
  std::string backend_;
  Engine preprocess_;
  Engine postprocess_;
};

// The network inputs of N pictures, (N, 3, h, w).
std::vector<float> concatenated(std::span<const Prepared> prepared);

}  // namespace salience
