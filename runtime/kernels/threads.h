// The threads of whoever calls a kernel: kernels start none of their own.
#pragma once

#include <cstddef>

namespace salience::kernels {

// Runs `count` tasks, which do not depend on each other, on the host's threads; on the caller's own by default.
struct Threads {
  using Task = void (*)(void* data, std::size_t index);
  using Run = void (*)(void* host, Task task, std::size_t count, void* data);

  Run run = nullptr;
  void* host = nullptr;

  template <typename Function>
  void each(std::size_t count, Function function) const {
    if (!run || count < 2) {
      for (std::size_t index = 0; index < count; ++index) function(index);
      return;
    }
    run(host, [](void* data, std::size_t index) { (*static_cast<Function*>(data))(index); }, count, &function);
  }
};

}  // namespace salience::kernels
