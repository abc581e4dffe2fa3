// `lps`: promotes a prior, which any detector may have made: embed the picture once, then refine the prior.
#pragma once

#include <vector>

#include "loop_pool.hpp"
#include "method.hpp"
#include "session.hpp"

namespace salience {

class PromoterMethod : public Method {
 public:
  explicit PromoterMethod(Service service);
  ~PromoterMethod() override;

  SaliencyMap promote(const Image& image, const Prior& prior, const PromoteOptions& options) const override;
  std::vector<SaliencyMap> promote_steps(const Image& image, const Prior& prior,
                                         const PromoteOptions& options) const override;

 private:
  struct Pair;
  struct Loop;
  enum class Keep { kLast, kAll };

  std::vector<float> infer(std::span<const Prepared> prepared) const override;
  Pair prepare_pair(const Image& image, const Prior& prior, EmptyPrior empty) const;
  // A map at the network's size.
  std::vector<float> stretch(const std::vector<float>& values, const Prior& prior) const;
  // The maps (1, 1, h, w) of the last round, or of all.
  std::vector<std::vector<float>> refine(const Pair& pair, int iterations, Keep keep) const;

  Engine resize_;
  mutable LoopPool<Loop> loops_;
};

}  // namespace salience
