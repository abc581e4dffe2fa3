// `gicd`: segments what a group of pictures has in common, in two passes with the consensus between them.
#pragma once

#include <vector>

#include "loop_pool.hpp"
#include "method.hpp"
#include "session.hpp"

namespace salience {

class GroupMethod : public Method {
 public:
  explicit GroupMethod(Service service);
  ~GroupMethod() override;

  std::vector<SaliencyMap> predict_group(std::span<const Image> images, const GroupOptions& options) const override;

 private:
  class Sessions;
  class Pass;

  // Each picture is a group of its own.
  std::vector<float> infer(std::span<const Prepared> prepared) const override;
  // What leads `segment` in G groups of N pictures: logits (G, N, K) -> (G, D). Sums are exact, so that their order
  // does not matter; the largest of them is taken off, which the softmax does not see and fp32 needs.
  Ort::Value guide(std::span<const float> logits, std::size_t groups, std::size_t pictures) const;
  std::vector<Prepared> prepare_members(std::span<const Image> images) const;

  mutable LoopPool<Sessions> sessions_;
};

}  // namespace salience
