// The CUDA kernels, emulated on the CPU (see cuda_emulation/cuda_runtime.h), against the CPU's: for sizes and addresses
// that can be read by 16 bytes and for others, with the warps of a block in either order, the second time on a grid of
// few blocks.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "block.hpp"
#include "check.hpp"
#include "dispatch.h"
#include "launch.h"

namespace {

using namespace salience::kernels;

// Elements that begin `shift` after an address that is a multiple of 16 bytes, with others around that nobody may
// write.
template <typename Value>
class Buffer {
 public:
  Buffer(std::int64_t count, std::int64_t shift)
      : count_(static_cast<std::size_t>(count)), bytes_(16 + sizeof(Value) * (count_ + 2 * around), guard) {
    const auto first = reinterpret_cast<std::uintptr_t>(bytes_.data()) + around * sizeof(Value);
    offset_ = (first + 15) / 16 * 16 - first + (around + static_cast<std::size_t>(shift)) * sizeof(Value);
  }

  Value* data() { return reinterpret_cast<Value*>(bytes_.data() + offset_); }

  std::vector<Value> values() {
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      if (i < offset_ || i >= offset_ + count_ * sizeof(Value)) CHECK_EQUAL(int{bytes_[i]}, int{guard});
    }
    return {data(), data() + count_};
  }

  void fill(const std::vector<Value>& values) { std::copy(values.begin(), values.end(), data()); }
  void forget() { std::memset(data(), guard, count_ * sizeof(Value)); }

 private:
  static constexpr std::size_t around = 16;
  static constexpr char guard = 0x5a;

  std::size_t count_, offset_;
  std::vector<char> bytes_;
};

std::vector<float> normal(std::int64_t count, float scale = 1.0f) {
  static std::mt19937 engine{1};
  std::normal_distribution<float> distribution(0.0f, scale);
  std::vector<float> found(static_cast<std::size_t>(count));
  std::generate(found.begin(), found.end(), [&] { return distribution(engine); });
  return found;
}

std::vector<float> share(std::int64_t count) {
  std::vector<float> found = normal(count);
  for (float& value : found) value = std::abs(value) - std::floor(std::abs(value));
  return found;
}

template <typename Value>
Buffer<Value> buffer_of(const std::vector<float>& values, std::int64_t shift) {
  Buffer<Value> found(static_cast<std::int64_t>(values.size()), shift);
  std::transform(values.begin(), values.end(), found.data(), [](float value) { return static_cast<Value>(value); });
  return found;
}

template <typename Value>
void near(Buffer<Value>& found, const std::vector<Value>& wanted, double tolerance) {
  const std::vector<Value> values = found.values();
  double worst = 0.0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(values[i]) - static_cast<double>(wanted[i])));
  }
  CHECK_NEAR(worst, 0.0, tolerance);
}

// Launches both ways; `compare` looks at the result each time.
template <typename Operator>
void each_way(const Operator& given, const std::function<void()>& prepare, const std::function<void()>& compare) {
  for (const bool second : {false, true}) {
    emulation::set_order(second ? emulation::Order::backwards : emulation::Order::forwards);
    emulation::set_most_blocks(second ? 3 : 65535);
    prepare();
    CHECK_EQUAL(launch(given, nullptr), cudaSuccess);
    compare();
  }
}

template <typename Value>
void fuses_as_on_the_cpu(std::int64_t batch, std::int64_t scales, std::int64_t pixels, std::int64_t shift,
                         double tolerance) {
  std::vector<Buffer<Value>> maps;
  MaxoutFusion<Value> fusion{};
  for (std::int64_t k = 0; k < scales; ++k) maps.push_back(buffer_of<Value>(normal(batch * pixels, 4.0f), shift));
  for (std::int64_t k = 0; k < scales; ++k) fusion.maps[k] = maps[static_cast<std::size_t>(k)].data();
  Buffer<Value> weights = buffer_of<Value>(share(batch * scales), 0), fused(batch * pixels, shift);
  fusion.weights = weights.data(), fusion.fused = fused.data();
  fusion.batch = batch, fusion.scales = scales, fusion.pixels = pixels;
  run(fusion, Threads{});
  const std::vector<Value> wanted = fused.values(), first = maps[0].values();
  each_way(fusion, [&] { fused.forget(); }, [&] { near(fused, wanted, tolerance); });
  fusion.fused = maps[0].data();
  each_way(fusion, [&] { maps[0].fill(first); }, [&] { near(maps[0], wanted, tolerance); });
}

template <typename Value>
void shuffles_as_on_the_cpu(const std::vector<std::int64_t>& strides, std::int64_t batch, std::int64_t channels,
                            std::int64_t height, std::int64_t width, std::int64_t shift) {
  std::vector<Buffer<Value>> maps;
  PixelShuffleConcat<Value> shuffle{};
  const std::int64_t size = batch * channels * height * width, levels = static_cast<std::int64_t>(strides.size());
  for (std::size_t k = 0; k < strides.size(); ++k) maps.push_back(buffer_of<Value>(share(size), shift));
  if constexpr (sizeof(Value) == 2) {
    for (Buffer<Value>& map : maps) std::iota(map.data(), map.data() + size, Value{});
  }
  for (std::size_t k = 0; k < strides.size(); ++k) shuffle.maps[k] = maps[k].data(), shuffle.strides[k] = strides[k];
  Buffer<Value> joined(levels * size, shift);
  shuffle.joined = joined.data(), shuffle.batch = batch, shuffle.levels = levels, shuffle.channels = channels;
  shuffle.height = height, shuffle.width = width;
  run(shuffle, Threads{});
  const std::vector<Value> wanted = joined.values();
  each_way(shuffle, [&] { joined.forget(); }, [&] { near(joined, wanted, 0.0); });
}

void clips_as_on_the_cpu(std::int64_t count, float low, float high, std::int64_t shift) {
  std::vector<float> values = normal(count, 3.0f);
  for (float& value : values) value = std::clamp(value, low, high);
  Buffer<float> grad = buffer_of<float>(normal(count), shift), activation = buffer_of<float>(values, shift);
  Buffer<float> result(count, shift);
  ClipBackward backward{grad.data(), activation.data(), result.data(), count, low, high};
  run(backward, Threads{});
  const std::vector<float> wanted = result.values(), before = grad.values();
  each_way(backward, [&] { result.forget(); }, [&] { near(result, wanted, 0.0); });
  backward.result = grad.data();
  each_way(backward, [&] { grad.fill(before); }, [&] { near(grad, wanted, 0.0); });
}

void unpools_as_on_the_cpu(std::int64_t planes, std::int64_t height, std::int64_t width, std::int64_t shift) {
  std::vector<float> values = normal(4 * planes * height * width);
  for (float& value : values) value = std::max(std::round(value), 0.0f);
  Buffer<float> grad = buffer_of<float>(normal(planes * height * width), shift);
  Buffer<float> activation = buffer_of<float>(values, shift), result(4 * planes * height * width, shift);
  PoolReluBackward backward{grad.data(), activation.data(), result.data(), planes, height, width};
  run(backward, Threads{});
  const std::vector<float> wanted = result.values();
  each_way(backward, [&] { result.forget(); }, [&] { near(result, wanted, 0.0); });
  backward.result = activation.data();
  each_way(backward, [&] { activation.fill(values); }, [&] { near(activation, wanted, 0.0); });
}

Buffer<float> scratch(std::size_t bytes) { return Buffer<float>(static_cast<std::int64_t>(bytes / sizeof(float)), 0); }

void centres_as_on_the_cpu(std::int64_t batch, std::int64_t rank, std::int64_t pixels, std::int64_t shift) {
  Buffer<float> rows = buffer_of<float>(normal(batch * rank * pixels), shift), centred(batch * rank * pixels, shift);
  Buffer<float> norm(batch * pixels, shift), means = scratch(centred_norm_scratch_bytes(batch, rank, pixels));
  CentredNorm centre{rows.data(), centred.data(), norm.data(), means.data(), batch, rank, pixels};
  run(centre, Threads{});
  const std::vector<float> wanted = centred.values(), wanted_norm = norm.values(), before = rows.values();
  const double rounding = 1e-6 * static_cast<double>(rank + 4);
  const auto forget = [&] { centred.forget(), norm.forget(), means.forget(), rows.fill(before); };
  each_way(centre, forget, [&] { near(centred, wanted, 1e-6), near(norm, wanted_norm, rounding), means.values(); });
  centre.centred = rows.data();
  each_way(centre, forget, [&] { near(rows, wanted, 1e-6), near(norm, wanted_norm, rounding); });
}

// Of four pictures one is ordinary, one mostly salient, one has no object, one no background.
void compares_as_on_the_cpu(std::int64_t rank, std::int64_t pixels, std::int64_t shift) {
  const std::int64_t batch = 4;
  Buffer<float> embedding = buffer_of<float>(normal(batch * rank * pixels), shift), norm(batch * pixels, shift);
  Buffer<float> sums = scratch(anchor_distance_scratch_bytes(batch, rank, pixels));
  std::vector<float> means(static_cast<std::size_t>(rank));
  std::vector<float> host_sums(static_cast<std::size_t>(anchor_distance_scratch(rank, pixels)));
  run(CentredNorm{embedding.data(), embedding.data(), norm.data(), means.data(), batch, rank, pixels}, Threads{});
  std::vector<float> shares = share(batch * pixels);
  const auto picture = [&](std::int64_t n) { return shares.begin() + n * pixels; };
  std::for_each(picture(1), picture(2), [](float& value) { value = 1.0f - 0.2f * value; });
  std::fill(picture(2), picture(3), 0.0f), std::fill(picture(3), picture(4), 1.0f);
  Buffer<float> salient = buffer_of<float>(shares, shift), prior = buffer_of<float>(share(batch * pixels), shift);
  Buffer<float> next(batch * pixels, shift);
  const float iteration = 2.0f;
  AnchorDistanceOnDevice distance{{embedding.data(), norm.data(), salient.data(), prior.data(), next.data(),
                                   host_sums.data(), batch, rank, pixels, iteration, 1.5f},
                                  &iteration};
  run(distance.operation, Threads{});
  const std::vector<float> wanted = next.values(), before = prior.values();
  distance.operation.sums = sums.data(), distance.operation.iteration = std::numeric_limits<float>::quiet_NaN();
  const auto forget = [&] { next.forget(), sums.forget(), prior.fill(before), salient.fill(shares); };
  for (Buffer<float>* place : {&next, &prior, &salient}) {
    distance.operation.next = place->data();
    each_way(distance, forget, [&] { near(*place, wanted, 2e-6), sums.values(); });
  }
}

void sums_do_not_depend_on_the_order_of_warps() {
  const std::int64_t rank = 9, pixels = 5000;
  Buffer<float> rows = buffer_of<float>(normal(rank * pixels), 0), centred(rank * pixels, 0), norm(pixels, 0);
  Buffer<float> means = scratch(centred_norm_scratch_bytes(1, rank, pixels));
  std::vector<std::vector<float>> found;
  each_way(CentredNorm{rows.data(), centred.data(), norm.data(), means.data(), 1, rank, pixels}, [] {},
             [&] { found.push_back(norm.values()); });
  CHECK(found[0] == found[1]);
}

void nothing_to_do_is_no_launch() {
  const std::size_t before = emulation::blocks_run();
  float some = 0.0f;
  CHECK_EQUAL(launch(ClipBackward{&some, &some, &some, 0, 0.0f, 1.0f}, nullptr), cudaSuccess);
  CHECK_EQUAL(launch(PoolReluBackward{&some, &some, &some, 3, 0, 5}, nullptr), cudaSuccess);
  CHECK_EQUAL(launch(CentredNorm{&some, &some, &some, &some, 0, 4, 4}, nullptr), cudaSuccess);
  CHECK_EQUAL(launch(MaxoutFusion<float>{{&some}, &some, &some, 0, 1, 4}, nullptr), cudaSuccess);
  CHECK_EQUAL(launch(PixelShuffleConcat<float>{{&some}, {2}, &some, 0, 1, 1, 2, 2}, nullptr), cudaSuccess);
  CHECK_EQUAL(emulation::blocks_run(), before);
}

void too_large_a_stride_is_refused() {
  float some = 0.0f;
  const PixelShuffleConcat<float> shuffle{{&some}, {2048}, &some, 1, 1, 1, 2048, 2048};
  CHECK_EQUAL(launch(shuffle, nullptr), cudaErrorInvalidValue);
}

void all_with_shift(std::int64_t shift) {
  for (const std::int64_t pixels : {1, 31, 1024, 4099}) {
    fuses_as_on_the_cpu<float>(2, 3, pixels, shift, 6e-7);
    fuses_as_on_the_cpu<Half>(2, 3, pixels, shift, 1e-3);  // the last place below 1 is 2^-11
  }
  fuses_as_on_the_cpu<float>(1, 8, 4099, shift, 6e-7);
  fuses_as_on_the_cpu<Half>(1, 1, 4099, shift, 1e-3);
  clips_as_on_the_cpu(4099, 0.0f, std::numeric_limits<float>::infinity(), shift);
  clips_as_on_the_cpu(2048, 0.0f, 6.0f, shift);
  unpools_as_on_the_cpu(1, 1, 1, shift);
  unpools_as_on_the_cpu(3, 5, 33, shift);
  unpools_as_on_the_cpu(3, 7, 36, shift);
  for (const std::int64_t pixels : {1, 130, 2048, 2101}) centres_as_on_the_cpu(2, 37, pixels, shift);
  for (const std::int64_t pixels : {3, 128, 515}) compares_as_on_the_cpu(11, pixels, shift);
}

template <typename Value>
void shuffle_all_kinds(std::int64_t shift) {
  shuffles_as_on_the_cpu<Value>({1, 2, 4, 8, 16}, 2, 3, 32, 48, shift);
  shuffles_as_on_the_cpu<Value>({3, 6, 12, 1, 2}, 1, 2, 24, 36, shift);
  shuffles_as_on_the_cpu<Value>({2, 4, 8, 16, 32}, 1, 1, 224, 224, shift);  // as a network has them
  shuffles_as_on_the_cpu<Value>({2, 1}, 1, 1, 126, 166, shift);
  shuffles_as_on_the_cpu<Value>({7}, 1, 1, 7 * 31, 7 * 33, shift);
  shuffles_as_on_the_cpu<Value>({100}, 1, 1, 300, 2800, shift);
}

}  // namespace

int main() {
  for (const std::int64_t shift : {0, 1}) {
    all_with_shift(shift);
    shuffle_all_kinds<float>(shift);
    shuffle_all_kinds<std::uint16_t>(shift);
  }
  compares_as_on_the_cpu(8, 2340, 0);
  compares_as_on_the_cpu(3, 2101, 0);
  sums_do_not_depend_on_the_order_of_warps();
  nothing_to_do_is_no_launch();
  too_large_a_stride_is_refused();
  return salience::test::result();
}
