#include <algorithm>

#include "c_boundary.hpp"

namespace salience {
namespace {

// Copies values of a map to the caller.
template <typename Element, typename Get>
salience_status copy_out(const salience_map* map, Element* buffer, std::size_t capacity, Get get) {
  return guarded([&] {
    const SaliencyMap& found = required(map, "map").map();
    required(buffer, "buffer");
    const std::size_t count = found.height() * found.width();
    if (capacity < count) {
      throw ArgumentError("buffer of " + std::to_string(capacity) + " elements: expected at least " +
                          std::to_string(count) + ", height * width of the map.");
    }
    std::ranges::copy(get(found), buffer);
  });
}

// Gives one property of a map.
template <typename Value, typename Get>
salience_status property(const salience_map* map, Value* value, const char* name, Get get) {
  return guarded([&] {
    Value& found = required(value, name);
    found = Value{};
    found = get(required(map, "map"));
  });
}

std::optional<double> limit_of(const double* limit) { return limit ? std::optional<double>(*limit) : std::nullopt; }

const std::pair<std::string, double>& class_of(const salience_map& map, std::size_t rank) {
  map.object();
  if (rank < map.classes.size()) return map.classes[rank];
  throw ArgumentError("rank " + std::to_string(rank) + ": expected less than " + std::to_string(map.classes.size()) +
                      ", the count of classes.");
}

}  // namespace
}  // namespace salience

using namespace salience;

void salience_map_free(salience_map* map) { delete map; }

salience_status salience_map_size(const salience_map* map, size_t* height, size_t* width) {
  const salience_status status =
      property(map, height, "height", [](const salience_map& of) { return of.map().height(); });
  if (status != SALIENCE_OK) return status;
  return property(map, width, "width", [](const salience_map& of) { return of.map().width(); });
}

salience_status salience_map_values(const salience_map* map, float* buffer, size_t capacity) {
  return copy_out(map, buffer, capacity,
                  [](const SaliencyMap& of) -> const std::vector<float>& { return of.values(); });
}

salience_status salience_map_grey(const salience_map* map, uint8_t* buffer, size_t capacity) {
  return copy_out(map, buffer, capacity, [](const SaliencyMap& of) { return of.grey(); });
}

salience_status salience_map_mask(const salience_map* map, const double* limit, uint8_t* buffer, size_t capacity) {
  return copy_out(map, buffer, capacity, [limit](const SaliencyMap& of) { return of.mask(limit_of(limit)); });
}

salience_status salience_map_threshold(const salience_map* map, double* threshold) {
  return property(map, threshold, "threshold", [](const salience_map& of) { return of.map().threshold(); });
}

salience_status salience_map_box(const salience_map* map, const double* limit, salience_box* box) {
  return property(map, box, "box", [limit](const salience_map& of) {
    const Box found = of.map().box(limit_of(limit)).value_or(Box{});
    return salience_box{found.top, found.left, found.bottom, found.right};
  });
}

salience_status salience_map_target(const salience_map* map, size_t* target) {
  return property(map, target, "target", [](const salience_map& of) { return of.object().target(); });
}

salience_status salience_map_label(const salience_map* map, const char** label) {
  return property(map, label, "label", [](const salience_map& of) { return of.object().label().c_str(); });
}

salience_status salience_map_class(const salience_map* map, size_t rank, const char** name, double* probability) {
  const salience_status status =
      property(map, name, "name", [rank](const salience_map& of) { return class_of(of, rank).first.c_str(); });
  if (status != SALIENCE_OK) return status;
  return property(map, probability, "probability",
                  [rank](const salience_map& of) { return class_of(of, rank).second; });
}
