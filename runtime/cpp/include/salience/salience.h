/* Serve bundles from C, and from any language that calls C; see salience.hpp for what the verbs do.
 *
 *   salience_detector* detector = NULL;
 *   salience_map* map = NULL;
 *   salience_image image = {pixels, height, width, 0};
 *   if (salience_load("bundles/multis", NULL, &detector) || salience_predict(detector, &image, &map)) {
 *     fprintf(stderr, "%s\n", salience_last_error());
 *   }
 *   salience_map_free(map);
 *   salience_detector_free(detector);
 *
 * Every function that may fail returns a status. A detector may be used by many threads at once, a map may be read by
 * many; freeing either is for one. Text that comes out is UTF-8 and belongs to what it was asked of. Outputs of a
 * function that fails are NULL, or 0, or not written where they are the caller's buffers. */
#ifndef SALIENCE_SALIENCE_H
#define SALIENCE_SALIENCE_H

#include <stddef.h>
#include <stdint.h>

#include "salience/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum salience_status {
  SALIENCE_OK = 0,
  SALIENCE_IMAGE = 1,               /* a picture or a prior is not what it should be */
  SALIENCE_BUNDLE = 2,              /* a bundle is missing or damaged */
  SALIENCE_ENGINE = 3,              /* an engine rejects its input or fails */
  SALIENCE_BACKEND_UNAVAILABLE = 4, /* what was asked for is not present on this machine */
  SALIENCE_ARGUMENT = 5,            /* an argument or option is not possible, or not with this bundle's method */
  SALIENCE_INTERNAL = 6             /* out of memory, or what nobody expected */
} salience_status;

typedef struct salience_detector salience_detector;
typedef struct salience_map salience_map;

/* A picture, (height, width, 3) uint8 RGB, its rows row_bytes apart; 0 stands for 3 * width. */
typedef struct salience_image {
  const uint8_t* data;
  size_t height;
  size_t width;
  size_t row_bytes;
} salience_image;

/* A saliency map to start from, (height, width) float32 in [0, 1], contiguous, of any size. */
typedef struct salience_prior {
  const float* data;
  size_t height;
  size_t width;
} salience_prior;

/* Pixels of an image: rows from top to bottom, columns from left to right, both ends exclusive. */
typedef struct salience_box {
  size_t top;
  size_t left;
  size_t bottom;
  size_t right;
} salience_box;

/* Options start with their size, so that they can grow: set them from the macro below each, then change fields.
 * A null pointer stands for the macro's. */
typedef struct salience_load_options {
  size_t size;
  const char* precision; /* "auto", "fp32", "fp16", "fp16-weights" or "int8" */
  const char* device;    /* "cpu", "cuda" or "cuda:N" */
  size_t max_pixels;     /* larger pictures and priors are refused */
  int threads;           /* CPU threads of one call; 0 for as many as are best */
  int fused_kernels;     /* 0 to leave the graphs' own operators to ONNX Runtime */
} salience_load_options;
#define SALIENCE_LOAD_OPTIONS {sizeof(salience_load_options), "auto", "cpu", 150000000, 0, 1}

typedef struct salience_group_options {
  size_t size;
  size_t memory_bytes; /* for features that are kept between the two passes over a group */
  size_t batch;        /* pictures per call of the engine */
} salience_group_options;
#define SALIENCE_GROUP_OPTIONS {sizeof(salience_group_options), 512000000, 1}

typedef struct salience_promote_options {
  size_t size;
  int iterations; /* rounds, at least 1 */
  int keep_empty; /* 1 to keep a prior that is 0 or 1 everywhere, which else is an error */
} salience_promote_options;
#define SALIENCE_PROMOTE_OPTIONS {sizeof(salience_promote_options), 1, 0}

/* A parameter of a preset and its new value as text, such as {"superpixels", "50"} or {"refine", "false"}. */
typedef struct salience_parameter {
  const char* name;
  const char* value;
} salience_parameter;

typedef struct salience_locate_options {
  size_t size;
  const char* preset;                /* "default", "paper" or "released" */
  const salience_parameter* changes; /* of the preset; may be NULL where change_count is 0 */
  size_t change_count;
} salience_locate_options;
#define SALIENCE_LOCATE_OPTIONS {sizeof(salience_locate_options), "default", NULL, 0}

/* Of the library, such as "0.1.0". */
SALIENCE_API const char* salience_version(void);

/* Why the last function of this thread that failed did so, in one sentence; it stands until the next one fails. */
SALIENCE_API const char* salience_last_error(void);

/* Open the bundle in a folder. */
SALIENCE_API salience_status salience_load(const char* bundle, const salience_load_options* options,
                                           salience_detector** detector);

/* NULL is fine. */
SALIENCE_API void salience_detector_free(salience_detector* detector);

SALIENCE_API salience_status salience_detector_method(const salience_detector* detector, const char** method);
SALIENCE_API salience_status salience_detector_precision(const salience_detector* detector, const char** precision);
SALIENCE_API salience_status salience_detector_backend(const salience_detector* detector, const char** backend);
SALIENCE_API salience_status salience_detector_input_size(const salience_detector* detector, size_t* height,
                                                          size_t* width);
SALIENCE_API salience_status salience_detector_class_count(const salience_detector* detector, size_t* count);
SALIENCE_API salience_status salience_detector_class_name(const salience_detector* detector, size_t index,
                                                          const char** name);

SALIENCE_API salience_status salience_predict(const salience_detector* detector, const salience_image* image,
                                              salience_map** map);

/* `maps` takes as many maps as there are images; all or none. */
SALIENCE_API salience_status salience_predict_batch(const salience_detector* detector, const salience_image* images,
                                                    size_t count, salience_map** maps);

/* As above; for bundles of gicd. */
SALIENCE_API salience_status salience_predict_group(const salience_detector* detector, const salience_image* images,
                                                    size_t count, const salience_group_options* options,
                                                    salience_map** maps);

/* For bundles of lps. */
SALIENCE_API salience_status salience_promote(const salience_detector* detector, const salience_image* image,
                                              const salience_prior* prior, const salience_promote_options* options,
                                              salience_map** map);

/* `maps` takes `count` maps, one for each of the options' iterations; all or none. */
SALIENCE_API salience_status salience_promote_steps(const salience_detector* detector, const salience_image* image,
                                                    const salience_prior* prior,
                                                    const salience_promote_options* options, size_t count,
                                                    salience_map** maps);

/* For bundles of cgd. `target` is the name or number of a class as text, NULL for the one that the classifier sees. */
SALIENCE_API salience_status salience_locate(const salience_detector* detector, const salience_image* image,
                                             const char* target, const salience_locate_options* options,
                                             salience_map** map);

/* NULL is fine. */
SALIENCE_API void salience_map_free(salience_map* map);

SALIENCE_API salience_status salience_map_size(const salience_map* map, size_t* height, size_t* width);

/* Copies into a buffer of `capacity` elements, at least height * width: float32 in [0, 1]; uint8, 255 for saliency 1;
 * or uint8 that is 1 where the map reaches `limit` and 0 elsewhere (NULL: the map's threshold). */
SALIENCE_API salience_status salience_map_values(const salience_map* map, float* buffer, size_t capacity);
SALIENCE_API salience_status salience_map_grey(const salience_map* map, uint8_t* buffer, size_t capacity);
SALIENCE_API salience_status salience_map_mask(const salience_map* map, const double* limit, uint8_t* buffer,
                                               size_t capacity);

/* The default threshold of masks and boxes: half of the map's maximum, and at least .3. */
SALIENCE_API salience_status salience_map_threshold(const salience_map* map, double* threshold);

/* The box around the object: around the mask at `limit` (NULL: the map's threshold) without specks, which are
 * 8-connected components of less than 5 % of the largest component's area. All fields are 0 where the mask is empty. */
SALIENCE_API salience_status salience_map_box(const salience_map* map, const double* limit, salience_box* box);

/* Of maps of salience_locate: the class, its name, and the name and probability of the classes, likeliest first. */
SALIENCE_API salience_status salience_map_target(const salience_map* map, size_t* target);
SALIENCE_API salience_status salience_map_label(const salience_map* map, const char** label);
SALIENCE_API salience_status salience_map_class(const salience_map* map, size_t rank, const char** name,
                                                double* probability);

#ifdef __cplusplus
}
#endif

#endif
