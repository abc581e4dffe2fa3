// Where C calls in: no exception gets out, and what comes in is checked.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "salience/salience.h"
#include "salience/salience.hpp"

struct salience_detector {
  salience::Detector detector;
};

struct salience_map {
  explicit salience_map(salience::SaliencyMap found) : content(std::move(found)) {}
  explicit salience_map(salience::ObjectMap found)
      : classes(found.classes(found.logits().size())), content(std::move(found)) {}

  const salience::SaliencyMap& map() const;
  // Throws where the map is not one of `locate`.
  const salience::ObjectMap& object() const;

  // Names and probabilities, the likeliest first.
  std::vector<std::pair<std::string, double>> classes;
  std::variant<salience::SaliencyMap, salience::ObjectMap> content;
};

namespace salience {

// An argument of C that no C++ type rules out.
class ArgumentError : public Error {
 public:
  using Error::Error;
};

// The exception in flight as a status; its message becomes the thread's last error.
salience_status status_of_exception() noexcept;
const char* last_error() noexcept;

template <typename Work>
salience_status guarded(Work work) noexcept {
  try {
    work();
    return SALIENCE_OK;
  } catch (...) {
    return status_of_exception();
  }
}

// What a pointer points to. Throws where it is null.
template <typename T>
T& required(T* pointer, const char* name) {
  if (!pointer) throw ArgumentError(std::string(name) + ": is null, expected a pointer; give one.");
  return *pointer;
}

// Options as the caller's version of them has them, the rest by default. Throws where they are of a later version.
template <typename Options>
Options given_or(const Options* given, Options options) {
  if (!given) return options;
  if (given->size < sizeof given->size || given->size > sizeof options) {
    throw ArgumentError("options of " + std::to_string(given->size) + " bytes: expected at most " +
                        std::to_string(sizeof options) + "; set size by the macro of this version's header.");
  }
  std::memcpy(&options, given, given->size);
  return options;
}

std::string text_of(const char* text, const char* name);

// Hands maps over, all or none.
template <typename Map>
void hand_over(std::vector<Map> found, salience_map** maps) {
  std::vector<std::unique_ptr<salience_map>> made;
  for (Map& map : found) made.push_back(std::make_unique<salience_map>(std::move(map)));
  for (std::unique_ptr<salience_map>& map : made) *maps++ = map.release();
}

}  // namespace salience
