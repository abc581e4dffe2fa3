// What TensorRT must know of each operator: its attributes, what its inputs must be, its outputs' shapes, its launch.
#pragma once

#include <NvInfer.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>

#include "launch.h"

namespace salience::kernels {

inline bool is_shape(const nvinfer1::Dims& dims, std::initializer_list<std::int64_t> expected) {
  if (dims.nbDims != static_cast<std::int32_t>(expected.size())) return false;
  std::size_t axis = 0;
  for (const std::int64_t size : expected) {
    if (dims.d[axis++] != size) return false;
  }
  return true;
}

inline std::int64_t elements(const nvinfer1::Dims& dims) {
  std::int64_t found = 1;
  for (std::int32_t axis = 0; axis < dims.nbDims; ++axis) found *= dims.d[axis];
  return found;
}

// Where a layer's tensors are.
struct Memory {
  const void* const* inputs;
  void* const* outputs;
  void* workspace;

  const float* input(int index) const { return static_cast<const float*>(inputs[index]); }
  float* output(int index = 0) const { return static_cast<float*>(outputs[index]); }
};

// Sizes of output dimensions are expressions of the inputs'.
struct Expressions {
  nvinfer1::IExprBuilder& builder;

  using Size = const nvinfer1::IDimensionExpr*;

  Size constant(std::int64_t value) const { return builder.constant(value); }
  Size times(Size size, std::int64_t factor) const {
    return builder.operation(nvinfer1::DimensionOperation::kPROD, *size, *constant(factor));
  }
  Size divided(Size size, std::int64_t divisor) const {
    return builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *size, *constant(divisor));
  }
};

using Tensors = const nvinfer1::PluginTensorDesc*;
using Shapes = const nvinfer1::DimsExprs*;

// What the operators have in common that need nothing more.
struct PlainOperation {
  static constexpr int outputs = 1;
  static constexpr bool takes_half = false;

  template <typename Self, typename Visit>
  static void visit_attributes(Self&, const Visit&) {}

  std::size_t workspace_bytes(const nvinfer1::Dims&) const { return 0; }
};

// MaxoutFusion (map2, map3, map4, weights) => (fused)
struct MaxoutFusionOperation : PlainOperation {
  static constexpr const char* name = "MaxoutFusion";
  static constexpr int inputs = 4, scales = 3;
  static constexpr bool takes_half = true;

  bool takes(Tensors given) const {
    const nvinfer1::Dims& first = given[0].dims;
    bool same = first.nbDims == 4;
    for (int k = 1; k < scales && same; ++k) {
      same = is_shape(given[k].dims, {first.d[0], first.d[1], first.d[2], first.d[3]});
    }
    return same && is_shape(given[scales].dims, {first.d[0], scales});
  }

  void find_shapes(Shapes given, nvinfer1::DimsExprs* found, const Expressions&) const { found[0] = given[0]; }

  cudaError_t launch(Tensors given, const Memory& memory, cudaStream_t stream) const {
    const bool half = given[0].type == nvinfer1::DataType::kHALF;
    return half ? launch_as<__half>(given, memory, stream) : launch_as<float>(given, memory, stream);
  }

 private:
  template <typename Value>
  cudaError_t launch_as(Tensors given, const Memory& memory, cudaStream_t stream) const {
    MaxoutFusion<Value> fusion{};
    for (int k = 0; k < scales; ++k) fusion.maps[k] = static_cast<const Value*>(memory.inputs[k]);
    fusion.weights = static_cast<const Value*>(memory.inputs[scales]);
    fusion.fused = static_cast<Value*>(memory.outputs[0]);
    fusion.batch = given[0].dims.d[0], fusion.scales = scales;
    fusion.pixels = given[0].dims.d[1] * given[0].dims.d[2] * given[0].dims.d[3];
    return kernels::launch(fusion, stream);
  }
};

// SubpixelConcat <stride1, ..., stride5> (map1, ..., map5) => (joined)
struct SubpixelConcatOperation : PlainOperation {
  static constexpr const char* name = "SubpixelConcat";
  static constexpr int inputs = 5;
  static constexpr bool takes_half = true;

  template <typename Self, typename Visit>
  static void visit_attributes(Self& self, const Visit& visit) {
    static constexpr std::array names{"stride1", "stride2", "stride3", "stride4", "stride5"};
    for (std::size_t k = 0; k < names.size(); ++k) visit(names[k], self.strides[k]);
  }

  bool takes(Tensors given) const {
    std::array<std::int64_t, 4> joined{};
    for (std::size_t k = 0; k < strides.size(); ++k) {
      const nvinfer1::Dims& map = given[k].dims;
      const std::int64_t stride = strides[k], area = stride * stride;
      if (stride < 1 || stride > most_shuffle_stride || map.nbDims != 4 || map.d[1] % area != 0) return false;
      const std::array<std::int64_t, 4> full{map.d[0], map.d[1] / area, map.d[2] * stride, map.d[3] * stride};
      if (k > 0 && full != joined) return false;
      joined = full;
    }
    return true;
  }

  void find_shapes(Shapes given, nvinfer1::DimsExprs* found, const Expressions& sizes) const {
    const std::int64_t stride = strides[0];
    found[0] = given[0];
    found[0].d[1] = sizes.times(sizes.divided(given[0].d[1], stride * stride), inputs);
    found[0].d[2] = sizes.times(given[0].d[2], stride);
    found[0].d[3] = sizes.times(given[0].d[3], stride);
  }

  cudaError_t launch(Tensors given, const Memory& memory, cudaStream_t stream) const {
    const bool half = given[0].type == nvinfer1::DataType::kHALF;
    return half ? launch_as<std::uint16_t>(given, memory, stream) : launch_as<float>(given, memory, stream);
  }

  std::array<std::int32_t, inputs> strides{};

 private:
  template <typename Value>
  cudaError_t launch_as(Tensors given, const Memory& memory, cudaStream_t stream) const {
    PixelShuffleConcat<Value> shuffle{};
    for (std::size_t k = 0; k < strides.size(); ++k) {
      shuffle.maps[k] = static_cast<const Value*>(memory.inputs[k]);
      shuffle.strides[k] = strides[k];
    }
    const nvinfer1::Dims& first = given[0].dims;
    const std::int64_t stride = strides[0];
    shuffle.joined = static_cast<Value*>(memory.outputs[0]);
    shuffle.batch = first.d[0], shuffle.levels = inputs, shuffle.channels = first.d[1] / (stride * stride);
    shuffle.height = first.d[2] * stride, shuffle.width = first.d[3] * stride;
    return kernels::launch(shuffle, stream);
  }
};

// ReluBackward (grad, activation) => (result)
struct ReluBackwardOperation : PlainOperation {
  static constexpr const char* name = "ReluBackward";
  static constexpr int inputs = 2;

  bool takes(Tensors given) const { return elements(given[0].dims) == elements(given[1].dims); }

  void find_shapes(Shapes given, nvinfer1::DimsExprs* found, const Expressions&) const { found[0] = given[0]; }

  cudaError_t launch(Tensors given, const Memory& memory, cudaStream_t stream) const {
    const std::int64_t count = elements(given[0].dims);
    return kernels::launch(ClipBackward{memory.input(0), memory.input(1), memory.output(), count, low, high}, stream);
  }

  float low = 0.0f, high = std::numeric_limits<float>::infinity();
};

// ClipBackward <low, high> (grad, activation) => (result)
struct ClipBackwardOperation : ReluBackwardOperation {
  static constexpr const char* name = "ClipBackward";

  template <typename Self, typename Visit>
  static void visit_attributes(Self& self, const Visit& visit) {
    visit("low", self.low);
    visit("high", self.high);
  }
};

// PoolReluBackward (grad, activation, largest) => (result)
struct PoolReluBackwardOperation : PlainOperation {
  static constexpr const char* name = "PoolReluBackward";
  static constexpr int inputs = 3;

  bool takes(Tensors given) const {
    const nvinfer1::Dims& grad = given[0].dims;
    return grad.nbDims == 4 && is_shape(given[1].dims, {grad.d[0], grad.d[1], 2 * grad.d[2], 2 * grad.d[3]});
  }

  void find_shapes(Shapes given, nvinfer1::DimsExprs* found, const Expressions&) const { found[0] = given[1]; }

  cudaError_t launch(Tensors given, const Memory& memory, cudaStream_t stream) const {
    const nvinfer1::Dims& grad = given[0].dims;
    const std::int64_t planes = grad.d[0] * grad.d[1];
    return kernels::launch(
        PoolReluBackward{memory.input(0), memory.input(1), memory.output(), planes, grad.d[2], grad.d[3]}, stream);
  }
};

// AnchorDistance <sharpness> (embedding, norm, salient, prior, iteration) => (next)
struct AnchorDistanceOperation : PlainOperation {
  static constexpr const char* name = "AnchorDistance";
  static constexpr int inputs = 5;

  template <typename Self, typename Visit>
  static void visit_attributes(Self& self, const Visit& visit) {
    visit("sharpness", self.sharpness);
  }

  bool takes(Tensors given) const {
    const nvinfer1::Dims& embedding = given[0].dims;
    bool rows = embedding.nbDims == 3 && elements(given[4].dims) == 1;
    for (int index = 1; index < 4 && rows; ++index) {
      rows = is_shape(given[index].dims, {embedding.d[0], 1, embedding.d[2]});
    }
    return rows;
  }

  void find_shapes(Shapes given, nvinfer1::DimsExprs* found, const Expressions&) const { found[0] = given[3]; }

  std::size_t workspace_bytes(const nvinfer1::Dims& embedding) const {
    return anchor_distance_scratch_bytes(embedding.d[0], embedding.d[1], embedding.d[2]);
  }

  cudaError_t launch(Tensors given, const Memory& memory, cudaStream_t stream) const {
    const nvinfer1::Dims& embedding = given[0].dims;
    AnchorDistanceOnDevice distance{};
    AnchorDistance& operation = distance.operation;
    operation.embedding = memory.input(0), operation.norm = memory.input(1), operation.salient = memory.input(2);
    operation.prior = memory.input(3), distance.iteration = memory.input(4);
    operation.next = memory.output(), operation.sums = static_cast<float*>(memory.workspace);
    operation.batch = embedding.d[0], operation.rank = embedding.d[1], operation.pixels = embedding.d[2];
    operation.sharpness = sharpness;
    return kernels::launch(distance, stream);
  }

  float sharpness = 0.0f;
};

// CentredNorm (rows) => (centred, norm)
struct CentredNormOperation : PlainOperation {
  static constexpr const char* name = "CentredNorm";
  static constexpr int inputs = 1, outputs = 2;

  bool takes(Tensors given) const { return given[0].dims.nbDims == 3; }

  void find_shapes(Shapes given, nvinfer1::DimsExprs* found, const Expressions& sizes) const {
    found[0] = found[1] = given[0];
    found[1].d[1] = sizes.constant(1);
  }

  std::size_t workspace_bytes(const nvinfer1::Dims& rows) const {
    return centred_norm_scratch_bytes(rows.d[0], rows.d[1], rows.d[2]);
  }

  cudaError_t launch(Tensors given, const Memory& memory, cudaStream_t stream) const {
    const nvinfer1::Dims& rows = given[0].dims;
    return kernels::launch(CentredNorm{memory.input(0), memory.output(), memory.output(1),
                                       static_cast<float*>(memory.workspace), rows.d[0], rows.d[1], rows.d[2]},
                           stream);
  }
};

}  // namespace salience::kernels
