// Names, types and shapes of the graphs' tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace salience {

enum class DataType { kFloat32, kFloat16, kUint8, kInt32, kInt64, kBool };

using Shape = std::vector<std::int64_t>;
// A size, or the name of one that is free at run time.
using Dimension = std::variant<std::int64_t, std::string>;

std::string_view name_of(DataType type);
std::size_t bytes_of(DataType type);

// The product of the sizes. Throws EngineError where one is negative or `size_bytes` times it exceeds 2^47, more than
// any machine has.
std::size_t count_of(const Shape& shape, std::size_t size_bytes = 1);

struct TensorSpec {
  std::string name;
  DataType type = DataType::kFloat32;
  std::vector<Dimension> shape;

  bool fits(DataType found, const Shape& found_shape) const;
  // With every free dimension of this size.
  Shape at(std::int64_t batch) const;
  std::string text() const;  // float32 (batch, 3)
};

const TensorSpec* find(std::span<const TensorSpec> specs, std::string_view name);
std::vector<std::string> names_of(std::span<const TensorSpec> specs);

}  // namespace salience
