// `cgd`: descends the gradient of a classifier's cost on the picture; what that takes away is the object.
#pragma once

#include <optional>
#include <vector>

#include "loop_pool.hpp"
#include "method.hpp"
#include "presets.hpp"

namespace salience {

class ClampedDescentMethod : public Method {
 public:
  explicit ClampedDescentMethod(Service service);
  ~ClampedDescentMethod() override;

  ObjectMap locate(const Image& image, const Target& target, const LocateOptions& options) const override;

 private:
  struct Descended;
  class Loop;

  // Of the classes that the classifier sees, with the default parameters.
  std::vector<float> infer(std::span<const Prepared> prepared) const override;
  // Run the loop on N pictures, each towards its class or the one that the classifier sees.
  std::vector<Descended> descend(std::span<const Prepared> prepared,
                                 const std::vector<std::optional<std::size_t>>& targets, const Descent& descent) const;
  // The map (h, w).
  std::vector<float> map_of(const Prepared& prepared, const Descended& found, const Refinement& refinement) const;

  std::shared_ptr<const std::vector<std::string>> names_;
  mutable LoopPool<Loop> loops_;
};

}  // namespace salience
