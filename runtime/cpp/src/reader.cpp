#include "reader.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text.hpp"

namespace salience {
namespace {

constexpr std::size_t kShown = 3;

// Digits with single underscores between them go, underscores elsewhere stay.
std::string without_separators(std::string_view text) {
  std::string found;
  const auto digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '_' && at > 0 && digit(at - 1) && digit(at + 1)) continue;
    found += text[at];
  }
  return found;
}

std::optional<std::int64_t> integer_in(std::string_view text) {
  std::string digits = without_separators(stripped(text));
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  if (const std::size_t point = digits.find('.'); point != std::string::npos) {
    const std::string fraction = digits.substr(point + 1);
    if (fraction.empty() || fraction.find_first_not_of('0') != std::string::npos) return std::nullopt;
    digits.resize(point);
  }
  if (!is_decimal(digits)) return std::nullopt;
  std::int64_t found = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), found);
  if (error != std::errc()) found = std::numeric_limits<std::int64_t>::max();
  return negative ? -found : found;
}

std::optional<double> number_in(std::string_view text) {
  std::string digits = folded(without_separators(stripped(text)));
  if (digits.starts_with('+')) digits.erase(0, 1);
  double found = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), found);
  if (error == std::errc::result_out_of_range) return std::numeric_limits<double>::infinity();
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return found;
}

std::string alternatives(std::span<const std::string_view> choices) {
  std::string text;
  for (std::size_t index = 0; index < choices.size(); ++index) {
    if (index > 0) text += index + 1 == choices.size() ? " or " : ", ";
    text += '\'';
    text += choices[index];
    text += '\'';
  }
  return text;
}

}  // namespace

void Reader::problem(const std::string& expected) const {
  if (problems_->size() < kShown) problems_->push_back(place() + ": " + expected);
}

std::string Reader::place() const {
  std::vector<std::string> names;
  for (const Place* at = place_.get(); at; at = at->parent.get()) names.push_back(printable(at->name));
  std::ranges::reverse(names);
  return names.empty() ? "text" : joined(names, ".");
}

Reader Reader::below(const json::Value& value, std::string name) const {
  Reader found(value, *problems_);
  found.place_ = std::make_shared<const Place>(place_, std::move(name));
  return found;
}

std::string Reader::text() const {
  if (const auto* found = std::get_if<std::string>(&value_->content)) return *found;
  problem("Input should be a valid string");
  return {};
}

std::optional<std::int64_t> Reader::whole() const {
  if (const auto* found = std::get_if<std::int64_t>(&value_->content)) return *found;
  if (const auto* found = std::get_if<bool>(&value_->content)) return *found;
  if (const auto* found = std::get_if<std::string>(&value_->content)) return integer_in(*found);
  if (const auto* found = std::get_if<double>(&value_->content)) {
    constexpr double limit = 9223372036854775808.0;  // 2^63
    if (std::floor(*found) == *found && *found >= -limit && *found < limit) return static_cast<std::int64_t>(*found);
  }
  return std::nullopt;
}

bool Reader::is_one() const { return !is_text() && whole() == 1; }

std::int64_t Reader::integer(std::int64_t least) const {
  const std::optional<std::int64_t> found = whole();
  if (!found) {
    problem("Input should be a valid integer");
  } else if (*found < least) {
    problem("Input should be greater than or equal to " + std::to_string(least));
  }
  return found.value_or(0);
}

double Reader::number(std::optional<double> least) const {
  std::optional<double> found;
  if (const auto* value = std::get_if<double>(&value_->content)) found = *value;
  if (const auto* value = std::get_if<std::int64_t>(&value_->content)) found = static_cast<double>(*value);
  if (const auto* value = std::get_if<bool>(&value_->content)) found = *value ? 1 : 0;
  if (const auto* value = std::get_if<std::string>(&value_->content)) found = number_in(*value);
  if (!found) {
    problem("Input should be a valid number");
  } else if (least && !(*found >= *least)) {
    problem("Input should be greater than or equal to " + general(*least));
  }
  return found.value_or(0);
}

std::string Reader::choice(std::span<const std::string_view> choices) const {
  const auto* found = std::get_if<std::string>(&value_->content);
  if (found && std::ranges::find(choices, *found) != choices.end()) return *found;
  problem("Input should be " + alternatives(choices));
  return {};
}

std::vector<Reader> Reader::items(std::optional<std::size_t> count) const {
  std::vector<Reader> found;
  const auto* array = std::get_if<json::Array>(&value_->content);
  if (!array) {
    problem("Input should be a valid array");
    return found;
  }
  if (count && array->size() > *count) {
    problem("Tuple should have at most " + std::to_string(*count) + " items after validation, not " +
            std::to_string(array->size()));
    return found;
  }
  for (const json::Value& item : *array) found.push_back(below(item, std::to_string(found.size())));
  if (!count || array->size() == *count) return found;
  for (std::size_t index = array->size(); index < *count; ++index) {
    below(*value_, std::to_string(index)).problem("Field required");
  }
  return {};
}

void Reader::members(const std::function<void(const std::string&, const Reader&)>& take) const {
  const auto* object = std::get_if<json::Object>(&value_->content);
  if (!object) {
    problem("Input should be an object");
    return;
  }
  for (const auto& [name, value] : *object) take(name, below(value, name));
}

Fields::Fields(const Reader& reader) : reader_(reader), members_(std::get_if<json::Object>(&reader.value_->content)) {
  if (!members_) reader_.problem("Input should be an object");
}

Fields::~Fields() {
  if (!members_) return;
  for (const auto& [name, value] : *members_) {
    if (std::ranges::find(known_, name) == known_.end()) {
      reader_.below(value, name).problem("Extra inputs are not permitted");
    }
  }
}

std::optional<Reader> Fields::optional(std::string_view name) {
  if (!members_) return std::nullopt;
  known_.push_back(name);
  const auto found = std::ranges::find(*members_, name, &std::pair<std::string, json::Value>::first);
  if (found == members_->end()) return std::nullopt;
  return reader_.below(found->second, found->first);
}

std::optional<Reader> Fields::required(std::string_view name) {
  const std::optional<Reader> found = optional(name);
  if (!found && members_) reader_.below(*reader_.value_, std::string(name)).problem("Field required");
  return found;
}

}  // namespace salience
