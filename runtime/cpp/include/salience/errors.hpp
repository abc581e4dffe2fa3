// Every error that the library throws on purpose.
//
//   Error
//   ├── ImageError      a picture or a prior is not what it should be, or is larger than allowed
//   ├── BundleError     a bundle is missing, damaged, tampered with, or of another format version
//   └── EngineError     an engine rejects its input or fails while running
//       └── BackendUnavailableError   what was asked for is not present on this machine
//
// A message is one sentence for the user: subject, what was found, what was expected, and the remedy.
#pragma once

#include <stdexcept>

#include "salience/export.h"

namespace salience {

class SALIENCE_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class SALIENCE_API ImageError : public Error {
 public:
  using Error::Error;
};

class SALIENCE_API BundleError : public Error {
 public:
  using Error::Error;
};

class SALIENCE_API EngineError : public Error {
 public:
  using Error::Error;
};

class SALIENCE_API BackendUnavailableError : public EngineError {
 public:
  using EngineError::EngineError;
};

}  // namespace salience
