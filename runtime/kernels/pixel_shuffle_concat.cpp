#include "pixel_shuffle_concat.h"

#include "variants.h"

namespace salience::kernels::SALIENCE_SET {
namespace {

// Elements that are woven together before they go to their rows: they and what they are made of stay in the
// first-level cache.
constexpr std::int64_t block = 2048;

template <typename Value>
void copy(const Value* __restrict from, std::int64_t count, Value* __restrict to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <typename Value>
void interleave(const Value* __restrict even, const Value* __restrict odd, std::int64_t count,
                Value* __restrict woven) {
  for (std::int64_t i = 0; i < count; ++i) {
    woven[2 * i] = even[i];
    woven[2 * i + 1] = odd[i];
  }
}

// woven[x * streams + j] = first[j * step + x] for x < count.
template <typename Value>
void gather(const Value* first, std::int64_t step, std::int64_t streams, std::int64_t count, Value* woven) {
  for (std::int64_t x = 0; x < count; ++x) {
    for (std::int64_t j = 0; j < streams; ++j) woven[x * streams + j] = first[j * step + x];
  }
}

// As `gather`. Powers of two are halved: those of even and of odd j are
// woven each, then interleaved, which vectors are good at. `space` is for 2 * streams * count elements.
template <typename Value>
void weave(const Value* first, std::int64_t step, std::int64_t streams, std::int64_t count, Value* woven, Value* space) {
  if (streams == 1) return copy(first, count, woven);
  if (streams == 2) return interleave(first, first + step, count, woven);
  if (streams % 2 == 0) {
    const std::int64_t half = streams / 2 * count;
    weave(first, 2 * step, streams / 2, count, space, space + 2 * half);
    weave(first + step, 2 * step, streams / 2, count, space + half, space + 2 * half);
    return interleave(space, space + half, half, woven);
  }
  gather(first, step, streams, count, woven);
}

// One channel of one level: `map` (stride, stride, height, width) becomes `found` (height * stride, width * stride).
template <typename Value>
void shuffle_channel(const Value* map, std::int64_t stride, std::int64_t height, std::int64_t width, Value* found) {
  const std::int64_t plane = height * width, row = width * stride;
  if (plane == 0) return;
  const std::int64_t most = row < block ? block / row : 1;
  Value woven[block], space[2 * block];
  for (std::int64_t i = 0; i < stride; ++i) {
    for (std::int64_t y = 0; y < height; y += most) {
      const Value* first = map + i * stride * plane + y * width;
      if (row > block) {
        gather(first, plane, stride, width, found + (y * stride + i) * row);
        continue;
      }
      const std::int64_t rows = smaller(most, height - y);
      weave(first, plane, stride, rows * width, woven, space);
      for (std::int64_t each = 0; each < rows; ++each) {
        copy(woven + each * row, row, found + ((y + each) * stride + i) * row);
      }
    }
  }
}

template <typename Value>
void run_any(const PixelShuffleConcat<Value>& shuffle, const Threads& threads) {
  const std::int64_t planes = shuffle.levels * shuffle.channels;
  threads.each(static_cast<std::size_t>(shuffle.batch * planes), [&](std::size_t index) {
    const std::int64_t n = static_cast<std::int64_t>(index) / planes, joined = static_cast<std::int64_t>(index) % planes;
    const std::int64_t k = joined / shuffle.channels, c = joined % shuffle.channels, stride = shuffle.strides[k];
    const std::int64_t plane = shuffle.height * shuffle.width;
    const Value* map = shuffle.maps[k] + (n * shuffle.channels + c) * plane;
    Value* found = shuffle.joined + static_cast<std::int64_t>(index) * plane;
    shuffle_channel(map, stride, shuffle.height / stride, shuffle.width / stride, found);
  });
}

}  // namespace

void run(const PixelShuffleConcat<float>& shuffle, const Threads& threads) { run_any(shuffle, threads); }
void run(const PixelShuffleConcat<std::uint16_t>& shuffle, const Threads& threads) { run_any(shuffle, threads); }

}  // namespace salience::kernels::SALIENCE_SET
