// What the operators of every execution provider share: inputs and outputs with their sizes checked, as the structs
// that kernels take.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "dispatch.h"

namespace salience::kernels {

using Shape = std::vector<std::int64_t>;

[[noreturn]] inline void refuse(const std::string& name, const std::string& got, const std::string& expected) {
  throw Ort::Exception("salience." + name + ": got " + got + ", expected " + expected + "; export the graph again.",
                       ORT_INVALID_ARGUMENT);
}

inline std::string text(const Shape& shape) {
  std::string found = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) found += (axis ? ", " : "") + std::to_string(shape[axis]);
  return found + ")";
}

inline void require(bool fits, const char* name, const Shape& got, const char* expected) {
  if (!fits) refuse(name, text(got), expected);
}

inline std::int64_t size(const Shape& shape, std::size_t first = 0) {
  std::int64_t found = 1;
  for (std::size_t axis = first; axis < shape.size(); ++axis) found *= shape[axis];
  return found;
}

template <typename Value>
struct Input {
  const Value* data;
  Shape shape;
};

// Elements are read as `Value` whatever their type is called, so that half precision can be any type of 16 bits.
template <typename Value>
Input<Value> input(const Ort::KernelContext& context, std::size_t index) {
  const Ort::ConstValue value = context.GetInput(index);
  return {static_cast<const Value*>(value.GetTensorRawData()), value.GetTensorTypeAndShapeInfo().GetShape()};
}

template <typename Value>
Value* output(const Ort::KernelContext& context, const Shape& shape, std::size_t index = 0) {
  return static_cast<Value*>(context.GetOutput(index, shape).GetTensorMutableRawData());
}

// MaxoutFusion (map2, map3, map4, weights) => (fused)
template <typename Value>
struct MaxoutFusionNode {
  static constexpr const char* name = "MaxoutFusion";
  static constexpr std::size_t inputs = 4, scales = 3;

  explicit MaxoutFusionNode(const Ort::ConstKernelInfo&) {}

  MaxoutFusion<Value> operator()(const Ort::KernelContext& context) const {
    MaxoutFusion<Value> fusion{};
    Shape shape;
    for (std::size_t k = 0; k < scales; ++k) {
      const auto map = input<Value>(context, k);
      require(map.shape.size() == 4 && (k == 0 || map.shape == shape), name, map.shape, "three maps of one shape (N, C, H, W)");
      shape = map.shape;
      fusion.maps[k] = map.data;
    }
    const auto weights = input<Value>(context, scales);
    require(weights.shape == Shape{shape[0], static_cast<std::int64_t>(scales)}, name, weights.shape, "weights (N, 3)");
    fusion.weights = weights.data;
    fusion.fused = output<Value>(context, shape);
    fusion.batch = shape[0], fusion.scales = scales, fusion.pixels = size(shape, 1);
    return fusion;
  }
};

// SubpixelConcat <stride1, ..., stride5> (map1, ..., map5) => (joined)
template <typename Value>
struct SubpixelConcatNode {
  static constexpr const char* name = "SubpixelConcat";
  static constexpr std::size_t inputs = 5;

  explicit SubpixelConcatNode(const Ort::ConstKernelInfo& info) {
    for (std::size_t k = 0; k < inputs; ++k) {
      strides[k] = info.GetAttribute<std::int64_t>(("stride" + std::to_string(k + 1)).c_str());
      if (strides[k] < 1 || strides[k] > 1024) refuse(name, "stride " + std::to_string(strides[k]), "1 to 1024");
    }
  }

  PixelShuffleConcat<Value> operator()(const Ort::KernelContext& context) const {
    PixelShuffleConcat<Value> shuffle{};
    Shape joined;
    for (std::size_t k = 0; k < inputs; ++k) {
      const auto map = input<Value>(context, k);
      const std::int64_t stride = strides[k];
      require(map.shape.size() == 4 && map.shape[1] % (stride * stride) == 0, name, map.shape, "a map (N, C * stride^2, H, W)");
      const Shape full{map.shape[0], map.shape[1] / (stride * stride), map.shape[2] * stride, map.shape[3] * stride};
      require(k == 0 || full == joined, name, full, "all levels of one shape when shuffled");
      joined = full;
      shuffle.maps[k] = map.data;
      shuffle.strides[k] = stride;
    }
    shuffle.batch = joined[0], shuffle.levels = inputs, shuffle.channels = joined[1];
    shuffle.height = joined[2], shuffle.width = joined[3];
    joined[1] *= static_cast<std::int64_t>(inputs);
    shuffle.joined = output<Value>(context, joined);
    return shuffle;
  }

  std::array<std::int64_t, inputs> strides{};
};

// ReluBackward (grad, activation) => (result) and ClipBackward <low, high> (grad, activation) => (result)
struct ReluBackwardNode {
  static constexpr const char* name = "ReluBackward";
  static constexpr std::size_t inputs = 2;
  static constexpr int overwrites = 0;  // the input whose memory the result may take

  explicit ReluBackwardNode(const Ort::ConstKernelInfo&) {}

  ClipBackward operator()(const Ort::KernelContext& context) const {
    const auto grad = input<float>(context, 0), activation = input<float>(context, 1);
    require(grad.shape == activation.shape, name, grad.shape, "a gradient of the activation's shape");
    return {grad.data, activation.data, output<float>(context, grad.shape), size(grad.shape), low, high};
  }

  float low = 0.0f, high = std::numeric_limits<float>::infinity();
};

struct ClipBackwardNode : ReluBackwardNode {
  static constexpr const char* name = "ClipBackward";

  explicit ClipBackwardNode(const Ort::ConstKernelInfo& info) : ReluBackwardNode(info) {
    low = info.GetAttribute<float>("low");
    high = info.GetAttribute<float>("high");
  }
};

// PoolReluBackward (grad, activation, largest) => (result); `largest`, the pooled activation, is for the body alone.
struct PoolReluBackwardNode {
  static constexpr const char* name = "PoolReluBackward";
  static constexpr std::size_t inputs = 3;
  static constexpr int overwrites = 1;

  explicit PoolReluBackwardNode(const Ort::ConstKernelInfo&) {}

  PoolReluBackward operator()(const Ort::KernelContext& context) const {
    const auto grad = input<float>(context, 0), activation = input<float>(context, 1);
    require(grad.shape.size() == 4, name, grad.shape, "a gradient (N, C, H, W)");
    const Shape full{grad.shape[0], grad.shape[1], 2 * grad.shape[2], 2 * grad.shape[3]};
    require(activation.shape == full, name, activation.shape, "an activation of twice the gradient's height and width");
    const std::int64_t planes = grad.shape[0] * grad.shape[1];
    return {grad.data, activation.data, output<float>(context, full), planes, grad.shape[2], grad.shape[3]};
  }
};

// AnchorDistance <sharpness> (embedding, norm, salient, prior, iteration) => (next); `sums` is still to be given.
struct AnchorDistanceNode {
  static constexpr const char* name = "AnchorDistance";
  static constexpr std::size_t inputs = 5;

  explicit AnchorDistanceNode(const Ort::ConstKernelInfo& info) : sharpness(info.GetAttribute<float>("sharpness")) {}

  AnchorDistance operator()(const Ort::KernelContext& context) const {
    AnchorDistance distance = without_iteration(context);
    distance.iteration = *input<float>(context, 4).data;
    return distance;
  }

  // For where the inputs are in memory that the host cannot read.
  AnchorDistance without_iteration(const Ort::KernelContext& context) const {
    const auto embedding = input<float>(context, 0), norm = input<float>(context, 1);
    const auto salient = input<float>(context, 2), prior = input<float>(context, 3), iteration = input<float>(context, 4);
    require(embedding.shape.size() == 3, name, embedding.shape, "an embedding (N, C, P)");
    const Shape row{embedding.shape[0], 1, embedding.shape[2]};
    for (const auto& each : {norm, salient, prior}) require(each.shape == row, name, each.shape, "rows (N, 1, P)");
    require(size(iteration.shape) == 1, name, iteration.shape, "one iteration number");
    AnchorDistance distance{};
    distance.embedding = embedding.data, distance.norm = norm.data;
    distance.salient = salient.data, distance.prior = prior.data;
    distance.next = output<float>(context, row);
    distance.batch = row[0], distance.rank = embedding.shape[1], distance.pixels = row[2];
    distance.sharpness = sharpness;
    return distance;
  }

  float sharpness;
};

// CentredNorm (rows) => (centred, norm); `means` is still to be given.
struct CentredNormNode {
  static constexpr const char* name = "CentredNorm";
  static constexpr std::size_t inputs = 1, outputs = 2;
  static constexpr int overwrites = 0;

  explicit CentredNormNode(const Ort::ConstKernelInfo&) {}

  CentredNorm operator()(const Ort::KernelContext& context) const {
    const auto rows = input<float>(context, 0);
    require(rows.shape.size() == 3, name, rows.shape, "rows (N, C, P)");
    const Shape row{rows.shape[0], 1, rows.shape[2]};
    float* centred = output<float>(context, rows.shape);
    return {rows.data, centred, output<float>(context, row, 1), nullptr, row[0], rows.shape[1], row[2]};
  }
};

}  // namespace salience::kernels
