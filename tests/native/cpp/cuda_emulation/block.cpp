#include "block.hpp"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace emulation {
namespace {

constexpr std::size_t warp_threads = 32, stack_bytes = 1 << 17, widest_value = 8;

struct Barrier {
  std::size_t arrived = 0, passed = 0;
};

struct Coroutine {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  std::array<std::array<char, widest_value>, 2> given;
  std::size_t exchanges = 0;
  bool done = true;
};

// One machine runs all kernels: a thread's code finds it without an argument.
struct Machine {
  Place place;
  Order order = Order::forwards;
  std::size_t block_threads = 0, running = 0, blocks = 0;
  bool moved = false;  // whether anything happened since the threads were last gone through
  ucontext_t scheduler;
  std::vector<Coroutine> coroutines;
  Barrier block_barrier;
  std::vector<Barrier> warp_barriers;
  const std::function<void()>* kernel = nullptr;
};

Machine& machine() {
  static Machine only;
  return only;
}

void yield() {
  Machine& all = machine();
  swapcontext(&all.coroutines[all.running].context, &all.scheduler);
}

void wait(Barrier& barrier, std::size_t count) {
  machine().moved = true;
  const std::size_t before = barrier.passed;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    ++barrier.passed;
  }
  while (barrier.passed == before) yield();
}

void start_thread() {
  Machine& all = machine();
  (*all.kernel)();
  all.coroutines[all.running].done = true;
  all.moved = true;
}

void make_threads() {
  Machine& all = machine();
  all.block_barrier = {};
  all.warp_barriers.assign(all.block_threads / warp_threads, {});
  if (all.coroutines.size() != all.block_threads) all.coroutines = std::vector<Coroutine>(all.block_threads);
  for (Coroutine& each : all.coroutines) {
    getcontext(&each.context);
    each.context.uc_stack.ss_sp = each.stack.get();
    each.context.uc_stack.ss_size = stack_bytes;
    each.context.uc_link = &all.scheduler;
    each.done = false;
    each.exchanges = 0;
    makecontext(&each.context, start_thread, 0);
  }
}

void resume(std::size_t thread) {
  Machine& all = machine();
  all.running = thread;
  all.place.thread = Size(static_cast<unsigned>(thread), 0, 0);
  swapcontext(&all.scheduler, &all.coroutines[thread].context);
}

// Goes once through all threads; whether one is left.
bool turn() {
  Machine& all = machine();
  bool left = false;
  all.moved = false;
  for (std::size_t i = 0; i < all.block_threads; ++i) {
    const std::size_t thread = all.order == Order::forwards ? i : all.block_threads - 1 - i;
    if (!all.coroutines[thread].done) resume(thread);
    left = left || !all.coroutines[thread].done;
  }
  if (left && !all.moved) {
    std::fputs("emulation: threads wait for others that do not come.\n", stderr);
    std::abort();
  }
  return left;
}

void run_block(Size block) {
  machine().place.block = block;
  make_threads();
  while (turn()) {
  }
  ++machine().blocks;
}

}  // namespace

const Place& current() { return machine().place; }

void set_order(Order order) { machine().order = order; }

std::size_t blocks_run() { return machine().blocks; }

void run(Size grid, Size block, const std::function<void()>& kernel) {
  Machine& all = machine();
  all.kernel = &kernel;
  all.block_threads = block.x;
  all.place.grid = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) run_block(Size(x, y, z));
    }
  }
}

void wait_for_block() { wait(machine().block_barrier, machine().block_threads); }

void exchange_bytes(void* mine, std::size_t size, int apart) {
  Machine& all = machine();
  const std::size_t thread = all.running, other = thread ^ static_cast<std::size_t>(apart);
  Barrier& barrier = all.warp_barriers[thread / warp_threads];
  // Two places in turn: who gives the next value but one has waited until this one was read by all.
  const std::size_t turn = all.coroutines[thread].exchanges++ % 2;
  std::memcpy(all.coroutines[thread].given[turn].data(), mine, size);
  wait(barrier, warp_threads);
  std::memcpy(mine, all.coroutines[other].given[turn].data(), size);
}

}  // namespace emulation
