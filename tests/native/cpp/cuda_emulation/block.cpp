#include "block.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

namespace emulation {
namespace {

constexpr std::size_t warp_threads = 32, stack_bytes = 1 << 17;

struct Barrier {
  std::size_t arrived = 0, passed = 0;
};

// A context is only for the first step onto its own stack; the others are jumps, which need no system call.
struct Coroutine {
  ucontext_t context;
  jmp_buf place;
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  std::array<std::array<char, widest_exchange>, 2> given;
  std::size_t exchanges = 0;
  bool started = false, done = true;
};

// One machine runs all kernels: a thread's code finds it without an argument.
struct Machine {
  Place place;
  Order order = Order::forwards;
  std::size_t block_threads = 0, running = 0, blocks = 0;
  unsigned most_blocks = std::numeric_limits<unsigned>::max();
  bool moved = false;  // whether a thread came to a barrier or its end
  jmp_buf scheduler;
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
  if (_setjmp(all.coroutines[all.running].place) == 0) _longjmp(all.scheduler, 1);
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
  _longjmp(all.scheduler, 1);
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
    each.context.uc_link = nullptr;
    each.started = each.done = false;
    each.exchanges = 0;
    makecontext(&each.context, start_thread, 0);
  }
}

void resume(std::size_t thread) {
  Machine& all = machine();
  all.running = thread;
  all.place.thread = Size(static_cast<unsigned>(thread), 0, 0);
  if (_setjmp(all.scheduler) != 0) return;
  if (all.coroutines[thread].started) _longjmp(all.coroutines[thread].place, 1);
  all.coroutines[thread].started = true;
  setcontext(&all.coroutines[thread].context);
}

// Runs a warp until its threads are done or wait for others; whether anything came of it.
bool run_warp(std::size_t warp) {
  Machine& all = machine();
  bool moved = false;
  do {
    all.moved = false;
    for (std::size_t thread = warp * warp_threads; thread < (warp + 1) * warp_threads; ++thread) {
      if (!all.coroutines[thread].done) resume(thread);
    }
    moved = moved || all.moved;
  } while (all.moved);
  return moved;
}

// Each warp goes as far as it can before the next: what lacks a barrier then goes wrong.
void run_warps() {
  const std::size_t warps = machine().warp_barriers.size();
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t i = 0; i < warps; ++i) {
      moved = run_warp(machine().order == Order::forwards ? i : warps - 1 - i) || moved;
    }
  }
}

void run_block(Size block) {
  machine().place.block = block;
  make_threads();
  run_warps();
  for (const Coroutine& each : machine().coroutines) {
    if (each.done) continue;
    std::fputs("emulation: threads wait for others that do not come.\n", stderr);
    std::abort();
  }
  ++machine().blocks;
}

}  // namespace

const Place& current() { return machine().place; }

void set_order(Order order) { machine().order = order; }

void set_most_blocks(unsigned most) { machine().most_blocks = most; }

std::size_t blocks_run() { return machine().blocks; }

void run(Size grid, Size block, const std::function<void()>& kernel) {
  Machine& all = machine();
  all.kernel = &kernel;
  all.block_threads = block.x;
  all.place.grid = Size(std::min(grid.x, all.most_blocks), std::min(grid.y, all.most_blocks), grid.z);
  for (unsigned z = 0; z < all.place.grid.z; ++z) {
    for (unsigned y = 0; y < all.place.grid.y; ++y) {
      for (unsigned x = 0; x < all.place.grid.x; ++x) run_block(Size(x, y, z));
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
