// Loops that wait for their next batch: their buffers are large, and making them costs time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace salience {

template <typename Loop>
class LoopPool {
 public:
  // A loop for batches of one size, this thread's alone while this lives. After a failure it is not given back.
  class Lease {
   public:
    Lease(LoopPool& pool, std::int64_t batch, std::unique_ptr<Loop> loop)
        : pool_(pool), batch_(batch), loop_(std::move(loop)) {}
    ~Lease() {
      if (std::uncaught_exceptions() == uncaught_) pool_.give_back(batch_, std::move(loop_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    Loop& operator*() const { return *loop_; }
    Loop* operator->() const { return loop_.get(); }

   private:
    LoopPool& pool_;
    std::int64_t batch_;
    std::unique_ptr<Loop> loop_;
    int uncaught_ = std::uncaught_exceptions();
  };

  // `make` gives a loop for batches of a size.
  template <typename Make>
  Lease take(std::int64_t batch, Make make) {
    std::unique_ptr<Loop> loop = idle(batch);
    return Lease(*this, batch, loop ? std::move(loop) : make(batch));
  }

 private:
  std::unique_ptr<Loop> idle(std::int64_t batch) {
    const std::lock_guard lock(mutex_);
    // Buffers of another size are let go: a run keeps to one size but for its last batch.
    std::erase_if(idle_, [&](const auto& item) { return item.first != batch; });
    if (idle_.empty()) return nullptr;
    std::unique_ptr<Loop> found = std::move(idle_.back().second);
    idle_.pop_back();
    return found;
  }

  void give_back(std::int64_t batch, std::unique_ptr<Loop> loop) noexcept {
    try {
      const std::lock_guard lock(mutex_);
      idle_.emplace_back(batch, std::move(loop));
    } catch (const std::bad_alloc&) {
      // The loop is let go.
    }
  }

  std::mutex mutex_;
  std::vector<std::pair<std::int64_t, std::unique_ptr<Loop>>> idle_;
};

}  // namespace salience
