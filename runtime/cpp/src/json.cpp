#include "json.hpp"

#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>

namespace salience::json {
namespace {

// What the Python package's parser takes, so that both accept the same files.
constexpr std::size_t kDeepest = 201;

void keep_last_of_equal_names(Object& members) {
  std::unordered_map<std::string_view, std::size_t> last;
  for (std::size_t index = 0; index < members.size(); ++index) last[members[index].first] = index;
  if (last.size() == members.size()) return;
  Object distinct;
  for (auto& [name, value] : members) {
    const auto found = last.find(name);
    if (found == last.end()) continue;
    distinct.emplace_back(name, std::move(members[found->second].second));
    last.erase(found);
  }
  members = std::move(distinct);
}

// Takes the parser's events; every one returns whether to go on.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Value take() { return std::move(root_); }

  bool null() override { return add(Value{nullptr}); }
  bool boolean(bool value) override { return add(Value{value}); }
  bool number_integer(number_integer_t value) override { return add(Value{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    constexpr auto largest = std::numeric_limits<std::int64_t>::max();
    const auto limit = static_cast<number_unsigned_t>(largest);
    return add(Value{value > limit ? largest : static_cast<std::int64_t>(value)});
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") != string_t::npos) return add(Value{value});
    return add(Value{value < 0 ? std::numeric_limits<std::int64_t>::min() : std::numeric_limits<std::int64_t>::max()});
  }
  bool string(string_t& value) override { return add(Value{std::move(value)}); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Value{Object{}}); }
  bool key(string_t& value) override {
    std::get<Object>(open_.back().content).emplace_back(std::move(value), Value{});
    return true;
  }
  bool end_object() override {
    keep_last_of_equal_names(std::get<Object>(open_.back().content));
    return close();
  }
  bool start_array(std::size_t) override { return open(Value{Array{}}); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override { return false; }

 private:
  bool add(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (auto* items = std::get_if<Array>(&open_.back().content)) {
      items->push_back(std::move(value));
    } else {
      std::get<Object>(open_.back().content).back().second = std::move(value);
    }
    return true;
  }

  bool open(Value container) {
    if (open_.size() >= kDeepest) return false;
    open_.push_back(std::move(container));
    return true;
  }

  bool close() {
    Value done = std::move(open_.back());
    open_.pop_back();
    return add(std::move(done));
  }

  Value root_;
  std::vector<Value> open_;
};

}  // namespace

std::optional<Value> parse(std::string_view text) {
  // The parser would skip a byte order mark.
  if (text.starts_with("\xef\xbb\xbf")) return std::nullopt;
  Builder builder;
  if (!nlohmann::json::sax_parse(text, &builder)) return std::nullopt;
  return builder.take();
}

}  // namespace salience::json
