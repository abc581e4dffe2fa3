#include "class_names.hpp"

#include <algorithm>
#include <charconv>
#include <functional>

#include "salience/errors.hpp"
#include "similar_names.hpp"
#include "text.hpp"

namespace salience {
namespace {

constexpr std::size_t kHints = 3;

bool is_word(char letter) {
  const auto byte = static_cast<unsigned char>(letter);
  const bool alphabetic = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte >= 0x80;
  return alphabetic || (byte >= '0' && byte <= '9') || byte == '_';
}

// Whether `text` lies in `name` with both of its ends at the border of a word.
bool has_word(std::string_view name, std::string_view text) {
  const auto word_at = [&](std::size_t at) { return at < name.size() && is_word(name[at]); };
  const auto border = [&](std::size_t at) { return word_at(at) != (at > 0 && word_at(at - 1)); };
  for (std::size_t at = name.find(text); at != std::string_view::npos; at = name.find(text, at + 1)) {
    if (border(at) && border(at + text.size())) return true;
  }
  return false;
}

bool is_synonym(std::string_view name, std::string_view text) {
  constexpr std::string_view comma = ", ";
  while (true) {
    const std::size_t end = name.find(comma);
    if (name.substr(0, end) == text) return true;
    if (end == std::string_view::npos) return false;
    name.remove_prefix(end + comma.size());
  }
}

std::vector<std::size_t> matches(std::span<const std::string> names,
                                 const std::function<bool(const std::string&)>& fits) {
  std::vector<std::size_t> found;
  for (std::size_t index = 0; index < names.size(); ++index) {
    if (fits(names[index])) found.push_back(index);
  }
  return found;
}

std::optional<std::size_t> number_in(std::string_view text, std::size_t count) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (!is_decimal(text) || error != std::errc() || number >= count) return std::nullopt;
  return number;
}

std::vector<std::string> look_alikes(std::span<const std::string> folded_names, const std::string& text,
                                     const std::vector<std::size_t>& found) {
  std::vector<std::string> alike;
  for (const std::size_t index : found) alike.push_back(std::to_string(index) + ", " + folded_names[index]);
  if (!alike.empty()) return alike;
  std::ranges::copy_if(folded_names, std::back_inserter(alike),
                       [&](const std::string& name) { return has_word(name, text); });
  return alike.empty() ? similar_names(folded_names, text, kHints) : alike;
}

[[noreturn]] void refuse(const std::string& subject, std::size_t found, std::size_t count,
                         std::vector<std::string> alike) {
  alike.resize(std::min(alike.size(), kHints));
  const std::string hint = alike.empty() ? "" : "; such as: " + joined(alike, " | ");
  throw Error("class " + subject + ": " + (found ? std::to_string(found) : "none") + " of that name, expected 0 to " +
              std::to_string(static_cast<std::ptrdiff_t>(count) - 1) + " or one name" + hint + ".");
}

}  // namespace

std::optional<std::size_t> class_index(std::span<const std::string> names, const Target& target) {
  if (!target.name() && !target.number()) return std::nullopt;
  const std::string given = target.name() ? *target.name() : std::to_string(*target.number());
  const std::string text = folded(stripped(given));
  std::vector<std::string> folded_names;
  for (const std::string& name : names) folded_names.push_back(folded(name));
  std::vector<std::size_t> found;
  if (target.name()) {
    found = matches(folded_names, [&](const std::string& name) { return name == text; });
    if (found.empty()) found = matches(folded_names, [&](const std::string& name) { return is_synonym(name, text); });
  }
  if (found.empty()) {
    if (const auto number = number_in(text, names.size())) return number;
  }
  if (found.size() == 1) return found.front();
  const std::string subject = target.name() ? in_quotes(given) : given;
  refuse(subject, found.size(), names.size(), look_alikes(folded_names, text, found));
}

}  // namespace salience
