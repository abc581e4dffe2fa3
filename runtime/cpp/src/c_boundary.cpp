#include "c_boundary.hpp"

#include <algorithm>
#include <array>
#include <new>

namespace salience {
namespace {

// Of a fixed size, so that running out of memory can be told; longer messages lose their end.
std::array<char, 4096>& message() {
  thread_local std::array<char, 4096> text{};
  return text;
}

salience_status note(salience_status status, const char* reason) noexcept {
  std::array<char, 4096>& text = message();
  const std::size_t length = std::min(std::strlen(reason), text.size() - 1);
  std::copy_n(reason, length, text.begin());
  text[length] = '\0';
  return status;
}

}  // namespace

const char* last_error() noexcept { return message().data(); }

salience_status status_of_exception() noexcept {
  try {
    throw;
  } catch (const ImageError& error) {
    return note(SALIENCE_IMAGE, error.what());
  } catch (const BundleError& error) {
    return note(SALIENCE_BUNDLE, error.what());
  } catch (const BackendUnavailableError& error) {
    return note(SALIENCE_BACKEND_UNAVAILABLE, error.what());
  } catch (const EngineError& error) {
    return note(SALIENCE_ENGINE, error.what());
  } catch (const Error& error) {
    return note(SALIENCE_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return note(SALIENCE_INTERNAL, "memory: there is not enough, expected some for each picture; give smaller ones.");
  } catch (const std::exception& error) {
    return note(SALIENCE_INTERNAL, error.what());
  } catch (...) {
    return note(SALIENCE_INTERNAL, "salience: failed for a reason that is not known; report it.");
  }
}

std::string text_of(const char* text, const char* name) { return &required(text, name); }

}  // namespace salience

const salience::SaliencyMap& salience_map::map() const {
  const auto* object = std::get_if<salience::ObjectMap>(&content);
  return object ? *object : std::get<salience::SaliencyMap>(content);
}

const salience::ObjectMap& salience_map::object() const {
  const auto* found = std::get_if<salience::ObjectMap>(&content);
  if (!found) throw salience::ArgumentError("map: has no class, expected one of salience_locate; use a bundle of cgd.");
  return *found;
}

const char* salience_version(void) { return salience::version(); }

const char* salience_last_error(void) { return salience::last_error(); }
