// The operators of the domain `salience` for ONNX Runtime: a library to register, with fused kernels that take the
// place of the function bodies in a model.
#pragma once

#include <onnxruntime_c_api.h>

#if defined(_WIN32)
#define SALIENCE_KERNELS_EXPORT __declspec(dllexport)
#else
#define SALIENCE_KERNELS_EXPORT __attribute__((visibility("default")))
#endif

// To be called on the options of a session before it is made; by `register_custom_ops_library` in Python. The library
// must stay loaded as long as the session. Operators of a type that has no kernel, such as AnchorDistance of half
// precision, are no valid model then.
extern "C" SALIENCE_KERNELS_EXPORT OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                                            const OrtApiBase* base);
