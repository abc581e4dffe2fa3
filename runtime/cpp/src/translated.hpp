// ONNX Runtime's exceptions stay inside of the library.
#pragma once

#include <onnxruntime_cxx_api.h>

#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {

// What `work` returns; what ONNX Runtime throws becomes EngineError.
template <typename Work>
auto translated(Work work) {
  try {
    return work();
  } catch (const Ort::Exception& error) {
    throw EngineError("onnxruntime: failed (" + first_line(error) + "), expected it to run; give it more memory.");
  }
}

}  // namespace salience
