#include "cuda_driver.hpp"

#include <dlfcn.h>

#include <string>

#include "salience/errors.hpp"

namespace salience {
namespace {

[[noreturn]] void fail(const std::string& reason) {
  throw EngineError("CUDA driver: " + reason +
                    ", expected it to copy tensors; check the driver, or ask for device cpu.");
}

void require(int status, const char* name) {
  if (status != 0) fail(std::string(name) + " failed with " + std::to_string(status));
}

}  // namespace

void CudaDriver::Closer::operator()(void* library) const { dlclose(library); }

template <typename Function>
void CudaDriver::find(const char* name, Function*& function) const {
  function = reinterpret_cast<Function*>(dlsym(library_.get(), name));
  if (!function) fail(std::string(name) + " is not found");
}

CudaDriver::CudaDriver(int device) : device_(device), library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
  if (!library_) fail("libcuda.so.1 is not found");
  find("cuDevicePrimaryCtxRetain", retain_);
  find("cuDevicePrimaryCtxRelease_v2", release_);
  find("cuCtxPushCurrent_v2", push_);
  find("cuCtxPopCurrent_v2", pop_);
  find("cuMemcpy", copy_);
  require(retain_(&context_, device_), "cuDevicePrimaryCtxRetain");
}

CudaDriver::~CudaDriver() { release_(device_); }

void CudaDriver::copy(void* to, const void* from, std::size_t bytes) const {
  require(push_(context_), "cuCtxPushCurrent");
  const int status = copy_(reinterpret_cast<std::uintptr_t>(to), reinterpret_cast<std::uintptr_t>(from), bytes);
  Context popped = nullptr;
  pop_(&popped);
  require(status, "cuMemcpy");
}

}  // namespace salience
