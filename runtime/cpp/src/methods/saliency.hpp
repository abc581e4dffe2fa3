// Any method that is one graph `saliency`, from network input to map: `multis` and `arn`.
#pragma once

#include <memory>
#include <vector>

#include "method.hpp"

namespace salience {

class SaliencyMethod : public Method {
 public:
  explicit SaliencyMethod(Service service);

 private:
  std::vector<float> infer(std::span<const Prepared> prepared) const override;
};

}  // namespace salience
