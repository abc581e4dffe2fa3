#include "tensors.hpp"

#include <algorithm>
#include <iterator>

#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

constexpr ONNXTensorElementDataType kElements[] = {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,   ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL};

std::string described(const Ort::Value& tensor) {
  return std::string(name_of(type_of(tensor))) + " " + shape_text(shape_of(tensor));
}

}  // namespace

void Tensors::add(std::string name, Ort::Value value) {
  names.push_back(std::move(name));
  values.push_back(std::move(value));
}

const Ort::Value* Tensors::find(std::string_view name) const {
  const auto found = std::ranges::find(names, name);
  return found == names.end() ? nullptr : &values[static_cast<std::size_t>(found - names.begin())];
}

Ort::Value Tensors::take(std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    throw EngineError("graph: no output " + in_quotes(name) + "; it has " + joined(names) + ".");
  }
  const auto place = values.begin() + (found - names.begin());
  Ort::Value taken = std::move(*place);
  names.erase(found);
  values.erase(place);
  return taken;
}

ONNXTensorElementDataType element_type(DataType type) { return kElements[static_cast<std::size_t>(type)]; }

DataType type_of(const Ort::Value& tensor) {
  const auto found = std::ranges::find(kElements, tensor.GetTensorTypeAndShapeInfo().GetElementType());
  if (found == std::end(kElements)) throw EngineError("tensor of a type that no bundle has; build the bundle again.");
  return static_cast<DataType>(found - std::begin(kElements));
}

Shape shape_of(const Ort::Value& tensor) { return tensor.GetTensorTypeAndShapeInfo().GetShape(); }

std::string mismatch(const TensorSpec& spec, const Ort::Value& tensor) {
  if (spec.fits(type_of(tensor), shape_of(tensor))) return {};
  return spec.name + ": got " + described(tensor) + ", expected " + spec.text();
}

std::vector<float> floats_of(const Ort::Value& tensor) {
  if (type_of(tensor) != DataType::kFloat32) {
    throw EngineError("tensor: got " + described(tensor) + ", expected float32; build the bundle again.");
  }
  const float* data = tensor.GetTensorData<float>();
  return {data, data + tensor.GetTensorTypeAndShapeInfo().GetElementCount()};
}

}  // namespace salience
