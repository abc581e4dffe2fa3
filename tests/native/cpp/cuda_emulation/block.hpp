// The threads of one block of an emulated GPU.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

namespace emulation {

struct Size {
  unsigned x = 1, y = 1, z = 1;

  constexpr Size(unsigned along_x = 1, unsigned along_y = 1, unsigned along_z = 1)
      : x(along_x), y(along_y), z(along_z) {}
};

// Where the code that runs is in its grid.
struct Place {
  Size thread, block, grid;
};

const Place& current();

// In which order the warps of a block run: what a kernel computes must not depend on it.
enum class Order { forwards, backwards };
void set_order(Order order);

// Grids get no more blocks than this along x and y, as if there were more to do than any grid has blocks for: kernels
// must then go on to what is left.
void set_most_blocks(unsigned most);

// Blocks that were run.
std::size_t blocks_run();

// Calls `kernel` for every thread of every block. Ends the program where threads wait for others that do not come.
void run(Size grid, Size block, const std::function<void()>& kernel);

void wait_for_block();

constexpr std::size_t widest_exchange = 8;

// Hands `mine` to the other threads of the warp; returns what the one has whose lane is mine xor `apart`.
void exchange_bytes(void* mine, std::size_t size, int apart);

template <std::size_t size>
std::array<char, size> exchange(std::array<char, size> mine, int apart) {
  static_assert(size <= widest_exchange);
  exchange_bytes(mine.data(), size, apart);
  return mine;
}

}  // namespace emulation
