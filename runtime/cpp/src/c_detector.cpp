#include <limits>

#include "c_boundary.hpp"

namespace salience {
namespace {

std::vector<Image> images_of(const salience_image* images, std::size_t count) {
  if (count > 0) required(images, "images");
  std::vector<Image> found;
  for (std::size_t index = 0; index < count; ++index) {
    const salience_image& image = images[index];
    found.push_back({image.data, image.height, image.width, image.row_bytes});
  }
  return found;
}

Image image_of(const salience_image* image) {
  const salience_image& found = required(image, "image");
  return {found.data, found.height, found.width, found.row_bytes};
}

Prior prior_of(const salience_prior* prior) {
  const salience_prior& found = required(prior, "prior");
  return {found.data, found.height, found.width};
}

LoadOptions options_of(const salience_load_options* given) {
  const salience_load_options options = given_or<salience_load_options>(given, SALIENCE_LOAD_OPTIONS);
  return {text_of(options.precision, "precision"), text_of(options.device, "device"), options.threads,
          options.fused_kernels != 0, options.max_pixels};
}

GroupOptions options_of(const salience_group_options* given) {
  const salience_group_options options = given_or<salience_group_options>(given, SALIENCE_GROUP_OPTIONS);
  return {options.memory_bytes, options.batch};
}

PromoteOptions options_of(const salience_promote_options* given) {
  const salience_promote_options options = given_or<salience_promote_options>(given, SALIENCE_PROMOTE_OPTIONS);
  return {options.iterations, options.keep_empty ? EmptyPrior::kKeep : EmptyPrior::kError};
}

LocateOptions options_of(const salience_locate_options* given) {
  const salience_locate_options options = given_or<salience_locate_options>(given, SALIENCE_LOCATE_OPTIONS);
  LocateOptions found{text_of(options.preset, "preset"), {}};
  for (std::size_t index = 0; index < options.change_count; ++index) {
    const salience_parameter& change = (&required(options.changes, "changes"))[index];
    found.changes[text_of(change.name, "name of a change")] = text_of(change.value, "value of a change");
  }
  return found;
}

Target target_of(const char* text) { return text ? Target(text) : Target(); }

void clear(salience_map** maps, std::size_t count) {
  for (std::size_t index = 0; maps && index < count; ++index) maps[index] = nullptr;
}

// Gives one property of a detector.
template <typename Value, typename Get>
salience_status property(const salience_detector* detector, Value* value, const char* name, Get get) {
  return guarded([&] {
    Value& found = required(value, name);
    found = Value{};
    found = get(required(detector, "detector").detector);
  });
}

void check_steps(std::size_t count, const PromoteOptions& options) {
  if (options.iterations >= 1 && count == static_cast<std::size_t>(options.iterations)) return;
  throw ArgumentError("maps: room for " + std::to_string(count) + ", expected one for each of " +
                      std::to_string(options.iterations) + " iterations, at least 1; give as many.");
}

}  // namespace
}  // namespace salience

using namespace salience;

salience_status salience_load(const char* bundle, const salience_load_options* options, salience_detector** detector) {
  return guarded([&] {
    salience_detector*& found = required(detector, "detector");
    found = nullptr;
    const LoadOptions wanted = options_of(options);
    found = std::make_unique<salience_detector>(load(text_of(bundle, "bundle"), wanted)).release();
  });
}

void salience_detector_free(salience_detector* detector) { delete detector; }

salience_status salience_detector_method(const salience_detector* detector, const char** method) {
  return property(detector, method, "method", [](const Detector& of) { return of.method().c_str(); });
}

salience_status salience_detector_precision(const salience_detector* detector, const char** precision) {
  return property(detector, precision, "precision", [](const Detector& of) { return of.precision().c_str(); });
}

salience_status salience_detector_backend(const salience_detector* detector, const char** backend) {
  return property(detector, backend, "backend", [](const Detector& of) { return of.backend().c_str(); });
}

salience_status salience_detector_input_size(const salience_detector* detector, size_t* height, size_t* width) {
  const salience_status status =
      property(detector, height, "height", [](const Detector& of) { return of.input_size().first; });
  if (status != SALIENCE_OK) return status;
  return property(detector, width, "width", [](const Detector& of) { return of.input_size().second; });
}

salience_status salience_detector_class_count(const salience_detector* detector, size_t* count) {
  return property(detector, count, "count", [](const Detector& of) { return of.classes().size(); });
}

salience_status salience_detector_class_name(const salience_detector* detector, size_t index, const char** name) {
  return property(detector, name, "name", [index](const Detector& of) {
    if (index >= of.classes().size()) {
      throw ArgumentError("class " + std::to_string(index) + ": expected less than " +
                          std::to_string(of.classes().size()) + ", the count of classes.");
    }
    return of.classes()[index].c_str();
  });
}

salience_status salience_predict(const salience_detector* detector, const salience_image* image, salience_map** map) {
  return guarded([&] {
    clear(&required(map, "map"), 1);
    std::vector<SaliencyMap> found;
    found.push_back(required(detector, "detector").detector.predict(image_of(image)));
    hand_over(std::move(found), map);
  });
}

salience_status salience_predict_batch(const salience_detector* detector, const salience_image* images, size_t count,
                                       salience_map** maps) {
  return guarded([&] {
    clear(&required(maps, "maps"), count);
    hand_over(required(detector, "detector").detector.predict_batch(images_of(images, count)), maps);
  });
}

salience_status salience_predict_group(const salience_detector* detector, const salience_image* images, size_t count,
                                       const salience_group_options* options, salience_map** maps) {
  return guarded([&] {
    clear(&required(maps, "maps"), count);
    const Detector& group = required(detector, "detector").detector;
    hand_over(group.predict_group(images_of(images, count), options_of(options)), maps);
  });
}

salience_status salience_promote(const salience_detector* detector, const salience_image* image,
                                 const salience_prior* prior, const salience_promote_options* options,
                                 salience_map** map) {
  return guarded([&] {
    clear(&required(map, "map"), 1);
    const Detector& promoter = required(detector, "detector").detector;
    std::vector<SaliencyMap> found;
    found.push_back(promoter.promote(image_of(image), prior_of(prior), options_of(options)));
    hand_over(std::move(found), map);
  });
}

salience_status salience_promote_steps(const salience_detector* detector, const salience_image* image,
                                       const salience_prior* prior, const salience_promote_options* options,
                                       size_t count, salience_map** maps) {
  return guarded([&] {
    clear(&required(maps, "maps"), count);
    const Detector& promoter = required(detector, "detector").detector;
    const PromoteOptions wanted = options_of(options);
    check_steps(count, wanted);
    hand_over(promoter.promote_steps(image_of(image), prior_of(prior), wanted), maps);
  });
}

salience_status salience_locate(const salience_detector* detector, const salience_image* image, const char* target,
                                const salience_locate_options* options, salience_map** map) {
  return guarded([&] {
    clear(&required(map, "map"), 1);
    const Detector& locator = required(detector, "detector").detector;
    std::vector<ObjectMap> found;
    found.push_back(locator.locate(image_of(image), target_of(target), options_of(options)));
    hand_over(std::move(found), map);
  });
}
