#include "tensor.hpp"

#include <algorithm>
#include <array>

#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {

std::string_view name_of(DataType type) {
  constexpr std::array<std::string_view, 6> names = {"float32", "float16", "uint8", "int32", "int64", "bool"};
  return names[static_cast<std::size_t>(type)];
}

std::size_t bytes_of(DataType type) {
  constexpr std::array<std::size_t, 6> sizes = {4, 2, 1, 4, 8, 1};
  return sizes[static_cast<std::size_t>(type)];
}

std::size_t count_of(const Shape& shape, std::size_t size_bytes) {
  constexpr std::size_t limit = std::size_t{1} << 47;
  const bool empty = std::ranges::find(shape, 0) != shape.end();
  std::size_t count = empty ? 0 : 1;
  for (const std::int64_t side : shape) {
    if (side < 0 || (!empty && static_cast<std::size_t>(side) > limit / size_bytes / count)) {
      throw EngineError("tensor of shape " + shape_text(shape) + ": expected sizes that fit in memory.");
    }
    if (!empty) count *= static_cast<std::size_t>(side);
  }
  return count;
}

bool TensorSpec::fits(DataType found, const Shape& found_shape) const {
  return found == type && std::ranges::equal(shape, found_shape, [](const Dimension& want, std::int64_t got) {
           const auto* size = std::get_if<std::int64_t>(&want);
           return !size || *size == got;
         });
}

Shape TensorSpec::at(std::int64_t batch) const {
  Shape found;
  for (const Dimension& side : shape) {
    const auto* size = std::get_if<std::int64_t>(&side);
    found.push_back(size ? *size : batch);
  }
  return found;
}

std::string TensorSpec::text() const {
  std::vector<std::string> sides;
  for (const Dimension& side : shape) {
    const auto* size = std::get_if<std::int64_t>(&side);
    sides.push_back(size ? std::to_string(*size) : std::get<std::string>(side));
  }
  return std::string(name_of(type)) + " (" + joined(sides) + ")";
}

const TensorSpec* find(std::span<const TensorSpec> specs, std::string_view name) {
  const auto found = std::ranges::find(specs, name, &TensorSpec::name);
  return found == specs.end() ? nullptr : &*found;
}

std::vector<std::string> names_of(std::span<const TensorSpec> specs) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : specs) names.push_back(spec.name);
  return names;
}

}  // namespace salience
