// JSON text as a tree that keeps the order of members, for documents that may be hostile.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace salience::json {

struct Value;
using Array = std::vector<Value>;
using Object = std::vector<std::pair<std::string, Value>>;  // names are distinct, the last of equal ones counts

struct Value {
  std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object> content = nullptr;
};

// The tree, or nothing where the text is no JSON (RFC 8259), or nested too deep.
std::optional<Value> parse(std::string_view text);

}  // namespace salience::json
