// Tensors that hold values, as graphs take and give them.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <string>
#include <string_view>
#include <vector>

#include "tensor.hpp"

namespace salience {

// Host tensors by name.
struct Tensors {
  std::vector<std::string> names;
  std::vector<Ort::Value> values;

  void add(std::string name, Ort::Value value);
  const Ort::Value* find(std::string_view name) const;
  // Moves one out. Throws EngineError where there is none of that name.
  Ort::Value take(std::string_view name);
};

ONNXTensorElementDataType element_type(DataType type);
DataType type_of(const Ort::Value& tensor);
Shape shape_of(const Ort::Value& tensor);

// What is wrong with a tensor, or nothing.
std::string mismatch(const TensorSpec& spec, const Ort::Value& tensor);

// A tensor over memory of the caller's, which is only read.
template <typename T>
Ort::Value view_of(const T* data, const Shape& shape) {
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  return Ort::Value::CreateTensor<T>(memory, const_cast<T*>(data), count_of(shape), shape.data(), shape.size());
}

// The values of a host tensor. Throws EngineError where they are not float32.
std::vector<float> floats_of(const Ort::Value& tensor);

}  // namespace salience
