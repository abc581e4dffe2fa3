// Reads a JSON tree strictly: what does not fit is noted with its place, so that a message can name it.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "json.hpp"

namespace salience {

// "place: what was expected", the first few in the order they were found.
using Problems = std::vector<std::string>;

// Where a value stands: its name or number below another place. Texts are made of it for problems alone, since a
// hostile document may have long names and many values below them.
struct Place {
  std::shared_ptr<const Place> parent;
  std::string name;
};

// A value, where it stands, and the problems of the document. Numbers are taken as the Python package takes them:
// also from booleans, and from text that holds one.
class Reader {
 public:
  Reader(const json::Value& value, Problems& problems) : value_(&value), problems_(&problems) {}

  std::string text() const;
  std::int64_t integer(std::int64_t least = std::numeric_limits<std::int64_t>::min()) const;
  double number(std::optional<double> least = std::nullopt) const;
  std::string choice(std::span<const std::string_view> choices) const;
  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_->content); }
  bool is_object() const { return std::holds_alternative<json::Object>(value_->content); }
  // Whether it is the number 1; text is not.
  bool is_one() const;
  bool is_text() const { return std::holds_alternative<std::string>(value_->content); }

  // Empty where it is no array, or where `count` is given and it has not so many items.
  std::vector<Reader> items(std::optional<std::size_t> count = std::nullopt) const;

  // Those of a table with free names.
  void members(const std::function<void(const std::string& name, const Reader& value)>& take) const;

  // A value below this one.
  Reader below(const json::Value& value, std::string name) const;
  // Note what was expected here.
  void problem(const std::string& expected) const;

 private:
  friend class Fields;
  std::optional<std::int64_t> whole() const;
  std::string place() const;

  const json::Value* value_;
  Problems* problems_;
  std::shared_ptr<const Place> place_;
};

// An object with known fields: every other one is a problem, noted when this goes out of scope.
class Fields {
 public:
  explicit Fields(const Reader& reader);
  ~Fields();
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  // Whether it is an object at all.
  bool readable() const { return members_ != nullptr; }
  // Nothing, and a problem, where it is missing.
  std::optional<Reader> required(std::string_view name);
  std::optional<Reader> optional(std::string_view name);

 private:
  Reader reader_;
  const json::Object* members_;
  std::vector<std::string_view> known_;
};

}  // namespace salience
