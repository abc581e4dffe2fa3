// Copies to and from a GPU, by the driver's library, which is opened where it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace salience {

// One GPU's copies; safe to call from many threads at once.
class CudaDriver {
 public:
  // Throws EngineError where there is no driver or no such GPU.
  explicit CudaDriver(int device);
  ~CudaDriver();
  CudaDriver(const CudaDriver&) = delete;
  CudaDriver& operator=(const CudaDriver&) = delete;

  // Copies between host and device memory, in whichever direction the two pointers say, and waits for it.
  // Throws EngineError where it fails.
  void copy(void* to, const void* from, std::size_t bytes) const;

 private:
  // The driver's C interface (CUDA driver API, since version 4), as far as a copy needs it.
  using Context = void*;
  struct Closer {
    void operator()(void* library) const;
  };

  template <typename Function>
  void find(const char* name, Function*& function) const;

  int device_;
  Context context_ = nullptr;
  std::unique_ptr<void, Closer> library_;
  int (*retain_)(Context*, int) = nullptr;
  int (*release_)(int) = nullptr;
  int (*push_)(Context) = nullptr;
  int (*pop_)(Context*) = nullptr;
  int (*copy_)(std::uintptr_t, std::uintptr_t, std::size_t) = nullptr;
};

}  // namespace salience
