#include "engine_options.hpp"

#include <charconv>
#include <string_view>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif

#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

constexpr std::string_view kNumbered = "cuda:";
constexpr std::size_t kDigits = 4;

}  // namespace

void EngineOptions::check() const {
  const std::string_view number =
      device.starts_with(kNumbered) ? std::string_view(device).substr(kNumbered.size()) : "";
  if (device != "cpu" && device != "cuda" && !(is_decimal(number) && number.size() <= kDigits)) {
    throw EngineError("device " + in_quotes(device) + ": expected cpu, cuda or cuda:N.");
  }
  if (threads < 0) throw EngineError("threads " + std::to_string(threads) + ": expected at least 1.");
}

int EngineOptions::device_index() const {
  int index = 0;
  if (device.starts_with(kNumbered)) {
    std::from_chars(device.data() + kNumbered.size(), device.data() + device.size(), index);
  }
  return index;
}

int available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

}  // namespace salience
