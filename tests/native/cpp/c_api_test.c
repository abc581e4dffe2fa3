/* The C interface: every fault is a status and a sentence. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "salience/salience.h"

static int failures = 0;

static void check(int holds, int line, const char* text) {
  if (holds) return;
  ++failures;
  fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, line, text, salience_last_error());
}

static void check_fault(salience_status found, salience_status expected, const char* message, int line) {
  if (found == expected && strstr(salience_last_error(), message)) return;
  ++failures;
  fprintf(stderr, "%s:%d: got status %d \"%s\", expected %d \"%s\"\n", __FILE__, line, (int)found,
          salience_last_error(), (int)expected, message);
}

#define CHECK(condition) check((condition) != 0, __LINE__, #condition)
#define CHECK_FAULT(call, status, message) check_fault((call), (status), (message), __LINE__)

enum { HEIGHT = 20, WIDTH = 30 };

static uint8_t pixels[HEIGHT * WIDTH * 3];
static float values[HEIGHT * WIDTH];

static void load_faults(const char* bundle) {
  salience_detector* detector = (salience_detector*)pixels;
  CHECK_FAULT(salience_load(NULL, NULL, &detector), SALIENCE_ARGUMENT, "bundle: is null");
  CHECK(detector == NULL);
  CHECK_FAULT(salience_load("/no/bundle", NULL, NULL), SALIENCE_ARGUMENT, "detector: is null");
  CHECK_FAULT(salience_load("/no/bundle", NULL, &detector), SALIENCE_BUNDLE, "no readable manifest.json");
  salience_load_options options = SALIENCE_LOAD_OPTIONS;
  options.size = sizeof options + 1;
  CHECK_FAULT(salience_load("/no/bundle", &options, &detector), SALIENCE_ARGUMENT, "expected at most");
  options.size = 0;
  CHECK_FAULT(salience_load("/no/bundle", &options, &detector), SALIENCE_ARGUMENT, "options of 0 bytes");
  options.size = sizeof options;
  options.device = NULL;
  CHECK_FAULT(salience_load("/no/bundle", &options, &detector), SALIENCE_ARGUMENT, "device: is null");
  options.device = "cuda";
  CHECK_FAULT(salience_load(bundle, &options, &detector), SALIENCE_BACKEND_UNAVAILABLE, "no CUDAExecutionProvider");
  options.device = "tpu";
  CHECK_FAULT(salience_load(bundle, &options, &detector), SALIENCE_ENGINE, "device 'tpu'");
}

/* Options of an older version of the header, which ended before `device`. */
static void load_with_shorter_options(const char* bundle) {
  salience_load_options options = SALIENCE_LOAD_OPTIONS;
  salience_detector* detector = NULL;
  options.size = offsetof(salience_load_options, device);
  options.device = "tpu";
  CHECK(salience_load(bundle, &options, &detector) == SALIENCE_OK);
  salience_detector_free(detector);
}

static void null_handles(void) {
  salience_map* map = NULL;
  salience_image image = {pixels, HEIGHT, WIDTH, 0};
  size_t size = 7;
  const char* text = "old";
  salience_detector_free(NULL);
  salience_map_free(NULL);
  CHECK_FAULT(salience_predict(NULL, &image, &map), SALIENCE_ARGUMENT, "detector: is null");
  CHECK_FAULT(salience_detector_method(NULL, &text), SALIENCE_ARGUMENT, "detector: is null");
  CHECK(text == NULL);
  CHECK_FAULT(salience_map_size(NULL, &size, &size), SALIENCE_ARGUMENT, "map: is null");
  CHECK(size == 0);
  CHECK_FAULT(salience_map_values(NULL, values, HEIGHT * WIDTH), SALIENCE_ARGUMENT, "map: is null");
}

static void picture_faults(const salience_detector* detector) {
  salience_map* map = (salience_map*)pixels;
  salience_image image = {pixels, HEIGHT, WIDTH, 0};
  CHECK_FAULT(salience_predict(detector, NULL, &map), SALIENCE_ARGUMENT, "image: is null");
  CHECK(map == NULL);
  CHECK_FAULT(salience_predict(detector, &image, NULL), SALIENCE_ARGUMENT, "map: is null");
  image.data = NULL;
  CHECK_FAULT(salience_predict(detector, &image, &map), SALIENCE_IMAGE, "data is null");
  image.data = pixels;
  image.height = 0;
  CHECK_FAULT(salience_predict(detector, &image, &map), SALIENCE_IMAGE, "not empty");
  image.height = SIZE_MAX;
  CHECK_FAULT(salience_predict(detector, &image, &map), SALIENCE_IMAGE, "megapixels, the limit is 150");
  image.width = SIZE_MAX;
  CHECK_FAULT(salience_predict(detector, &image, &map), SALIENCE_IMAGE, "megapixels");
  image.height = HEIGHT;
  image.width = WIDTH;
  image.row_bytes = 3 * WIDTH - 1;
  CHECK_FAULT(salience_predict(detector, &image, &map), SALIENCE_IMAGE, "rows 89 bytes apart");
  image.row_bytes = SIZE_MAX;
  CHECK_FAULT(salience_predict(detector, &image, &map), SALIENCE_IMAGE, "bytes apart");
  CHECK_FAULT(salience_predict_batch(detector, NULL, 2, &map), SALIENCE_ARGUMENT, "images: is null");
}

static void verbs_of_other_methods(const salience_detector* detector) {
  salience_map* map = NULL;
  const salience_image image = {pixels, HEIGHT, WIDTH, 0};
  const salience_prior prior = {values, HEIGHT, WIDTH};
  salience_locate_options options = SALIENCE_LOCATE_OPTIONS;
  CHECK_FAULT(salience_promote(detector, &image, &prior, NULL, &map), SALIENCE_ARGUMENT, "expected lps for promote");
  CHECK_FAULT(salience_promote(detector, &image, NULL, NULL, &map), SALIENCE_ARGUMENT, "prior: is null");
  CHECK_FAULT(salience_promote_steps(detector, &image, &prior, NULL, 0, &map), SALIENCE_ARGUMENT, "room for 0");
  CHECK_FAULT(salience_locate(detector, &image, NULL, NULL, &map), SALIENCE_ARGUMENT, "expected cgd for locate");
  options.change_count = 1;
  CHECK_FAULT(salience_locate(detector, &image, NULL, &options, &map), SALIENCE_ARGUMENT, "changes: is null");
  CHECK_FAULT(salience_predict_group(detector, &image, 1, NULL, &map), SALIENCE_ARGUMENT, "expected gicd");
}

static void describes(const salience_detector* detector) {
  const char* text = NULL;
  size_t height = 0, width = 0, count = 1;
  CHECK(salience_detector_method(detector, &text) == SALIENCE_OK && strcmp(text, "multis") == 0);
  CHECK(salience_detector_precision(detector, &text) == SALIENCE_OK && strcmp(text, "fp16-weights") == 0);
  CHECK(salience_detector_backend(detector, &text) == SALIENCE_OK && strstr(text, "CPUExecutionProvider"));
  CHECK(salience_detector_input_size(detector, &height, &width) == SALIENCE_OK);
  CHECK(height == TEST_BUNDLE_HEIGHT && width == TEST_BUNDLE_WIDTH);
  CHECK(salience_detector_class_count(detector, &count) == SALIENCE_OK && count == 0);
  CHECK_FAULT(salience_detector_class_name(detector, 0, &text), SALIENCE_ARGUMENT, "class 0: expected less than 0");
}

static void map_faults(const salience_map* map) {
  static uint8_t levels[HEIGHT * WIDTH];
  const double wrong = 1.5;
  size_t target = 0;
  const char* text = NULL;
  salience_box box = {1, 1, 1, 1};
  CHECK_FAULT(salience_map_box(map, &wrong, &box), SALIENCE_ARGUMENT, "threshold 1.5");
  CHECK(box.top == 0 && box.left == 0 && box.bottom == 0 && box.right == 0);
  CHECK_FAULT(salience_map_box(map, NULL, NULL), SALIENCE_ARGUMENT, "box: is null");
  CHECK_FAULT(salience_map_grey(map, levels, HEIGHT * WIDTH - 1), SALIENCE_ARGUMENT, "buffer of 599 elements");
  CHECK_FAULT(salience_map_grey(map, NULL, HEIGHT * WIDTH), SALIENCE_ARGUMENT, "buffer: is null");
  CHECK_FAULT(salience_map_mask(map, &wrong, levels, HEIGHT * WIDTH), SALIENCE_ARGUMENT, "threshold 1.5");
  CHECK_FAULT(salience_map_target(map, &target), SALIENCE_ARGUMENT, "has no class");
  CHECK_FAULT(salience_map_label(map, &text), SALIENCE_ARGUMENT, "has no class");
}

static void predicts(const salience_detector* detector) {
  static uint8_t levels[HEIGHT * WIDTH], mask[HEIGHT * WIDTH];
  const salience_image images[2] = {{pixels, HEIGHT, WIDTH, 0}, {pixels, HEIGHT / 2, WIDTH, 0}};
  salience_map* maps[2] = {NULL, NULL};
  size_t height = 0, width = 0;
  double threshold = -1;
  const double everywhere = 0;
  salience_box box = {0, 0, 0, 0};
  CHECK(salience_predict_batch(detector, images, 2, maps) == SALIENCE_OK);
  CHECK(salience_map_size(maps[1], &height, &width) == SALIENCE_OK && height == HEIGHT / 2 && width == WIDTH);
  CHECK(salience_map_values(maps[0], values, HEIGHT * WIDTH) == SALIENCE_OK);
  CHECK(salience_map_grey(maps[0], levels, HEIGHT * WIDTH) == SALIENCE_OK);
  CHECK(salience_map_mask(maps[0], NULL, mask, HEIGHT * WIDTH) == SALIENCE_OK);
  CHECK(salience_map_threshold(maps[0], &threshold) == SALIENCE_OK && threshold > 0 && threshold <= 1);
  for (int at = 0; at < HEIGHT * WIDTH; ++at) {
    CHECK(fabs((double)values[at] * 255 - levels[at]) <= 0.5 + 1e-4);
    CHECK(mask[at] == (values[at] >= (float)threshold));
  }
  CHECK(salience_map_box(maps[0], &everywhere, &box) == SALIENCE_OK);
  CHECK(box.top < box.bottom && box.bottom <= HEIGHT && box.left < box.right && box.right <= WIDTH);
  map_faults(maps[0]);
  salience_map_free(maps[0]);
  salience_map_free(maps[1]);
}

int main(void) {
  const char* bundle = getenv("SALIENCE_TEST_BUNDLE");
  salience_detector* detector = NULL;
  for (int at = 0; at < HEIGHT * WIDTH * 3; ++at) pixels[at] = (uint8_t)(at * 7);
  CHECK(strcmp(salience_last_error(), "") == 0);
  CHECK(strlen(salience_version()) >= 5);
  null_handles();
  if (!bundle) {
    fprintf(stderr, "SALIENCE_TEST_BUNDLE is not set, expected the folder of a bundle of multis\n");
    return 1;
  }
  load_faults(bundle);
  load_with_shorter_options(bundle);
  CHECK(salience_load(bundle, NULL, &detector) == SALIENCE_OK);
  describes(detector);
  picture_faults(detector);
  verbs_of_other_methods(detector);
  predicts(detector);
  salience_detector_free(detector);
  return failures > 0;
}
