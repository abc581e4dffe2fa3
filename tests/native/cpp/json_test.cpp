// JSON as the Python package reads it.
#include "json.hpp"

#include <cstdint>
#include <string>

#include "check.hpp"

using namespace salience;
using namespace salience::test;

namespace {

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

void keeps_order_and_the_last_of_equal_names() {
  const auto tree = json::parse(R"({"b": 1, "a": 2, "b": 3})");
  const auto& members = std::get<json::Object>(tree->content);
  CHECK_EQUAL(members.size(), std::size_t{2});
  CHECK_EQUAL(members[0].first, "b");
  CHECK_EQUAL(std::get<std::int64_t>(members[0].second.content), 3);
  CHECK_EQUAL(members[1].first, "a");
}

void keeps_kinds() {
  const auto tree = json::parse(R"([null, true, -3, 2.5, 1e3, "\u00e9", 99999999999999999999, []])");
  const auto& items = std::get<json::Array>(tree->content);
  CHECK(std::holds_alternative<std::nullptr_t>(items[0].content));
  CHECK(std::get<bool>(items[1].content));
  CHECK_EQUAL(std::get<std::int64_t>(items[2].content), -3);
  CHECK_EQUAL(std::get<double>(items[3].content), 2.5);
  CHECK_EQUAL(std::get<double>(items[4].content), 1000.0);
  CHECK_EQUAL(std::get<std::string>(items[5].content), "\xc3\xa9");
  CHECK_EQUAL(std::get<std::int64_t>(items[6].content), INT64_MAX);
  CHECK(std::get<json::Array>(items[7].content).empty());
}

void refuses() {
  for (const char* text :
       {"", "{", "[1,]", "{\"a\": 01}", "{} x", "/**/{}", "\"\\ud800\"", "\"\xff\"", "\"\t\"", "NaN"}) {
    CHECK(!json::parse(text));
  }
}

void bounds_the_depth() {
  CHECK(json::parse(nested(201)).has_value());
  CHECK(!json::parse(nested(202)));
  CHECK(!json::parse(std::string(1 << 20, '[')));
}

}  // namespace

int main() {
  keeps_order_and_the_last_of_equal_names();
  keeps_kinds();
  refuses();
  bounds_the_depth();
  return result();
}
