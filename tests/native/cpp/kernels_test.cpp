// Every kernel, by every instruction set that this CPU has, against its definition computed in double precision.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "dispatch.h"
#include "variants.h"

namespace {

using namespace salience::kernels;
using Floats = std::vector<float>;

struct Random {
  std::mt19937 engine{1};

  Floats normal(std::int64_t count, float scale = 1.0f) {
    std::normal_distribution<float> distribution(0.0f, scale);
    return drawn(count, distribution);
  }

  Floats share(std::int64_t count) {
    std::uniform_real_distribution<float> distribution(0.0f, 1.0f);
    return drawn(count, distribution);
  }

  template <typename Distribution>
  Floats drawn(std::int64_t count, Distribution& distribution) {
    Floats found(static_cast<std::size_t>(count));
    std::generate(found.begin(), found.end(), [&] { return distribution(engine); });
    return found;
  }
};

// Three threads, so that tasks are taken in any order.
void run_on_threads(void*, Threads::Task task, std::size_t count, void* data) {
  std::vector<std::thread> threads;
  for (std::size_t first = 0; first < 3; ++first) {
    threads.emplace_back([=] {
      for (std::size_t index = first; index < count; index += 3) task(data, index);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Runs an operator by each instruction set, on one thread and on several, and calls `compare` after each.
template <typename Operator, typename Compare>
void each_way(const Operator& given, const Compare& compare) {
  for (const Threads& threads : {Threads{}, Threads{run_on_threads, nullptr}}) {
    baseline::run(given, threads);
    compare();
#ifdef SALIENCE_X86
    if (widest_instruction_set() >= InstructionSet::avx2) {
      avx2::run(given, threads);
      compare();
    }
    if (widest_instruction_set() >= InstructionSet::avx512) {
      avx512::run(given, threads);
      compare();
    }
#endif
    run(given, threads);
    compare();
  }
}

void near(const Floats& found, const std::vector<double>& wanted, double tolerance) {
  CHECK_EQUAL(found.size(), wanted.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < wanted.size(); ++i) worst = std::max(worst, std::abs(found[i] - wanted[i]));
  CHECK_NEAR(worst, 0.0, tolerance);
}

double exact_sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

void maxout_fusion_is_its_definition(std::int64_t batch, std::int64_t scales, std::int64_t pixels) {
  Random random;
  std::vector<Floats> maps;
  MaxoutFusion<float> fusion{};
  for (std::int64_t k = 0; k < scales; ++k) {
    maps.push_back(random.normal(batch * pixels, 4.0f));
    maps.back()[0] = k % 2 ? 1e30f : -1e30f;
    fusion.maps[k] = maps.back().data();
  }
  const Floats weights = random.share(batch * scales);
  Floats fused(static_cast<std::size_t>(batch * pixels));
  fusion.weights = weights.data(), fusion.fused = fused.data();
  fusion.batch = batch, fusion.scales = scales, fusion.pixels = pixels;
  std::vector<double> wanted(fused.size(), 0.0);
  for (std::int64_t i = 0; i < batch * pixels; ++i) {
    for (std::int64_t k = 0; k < scales; ++k) {
      const double weight = weights[static_cast<std::size_t>(i / pixels * scales + k)];
      const auto place = static_cast<std::size_t>(i);
      wanted[place] = std::max(wanted[place], weight * exact_sigmoid(maps[static_cast<std::size_t>(k)][place]));
    }
  }
  each_way(fusion, [&] { near(fused, wanted, 3e-7); });  // a few units in the last place of 1
}

void pixel_shuffle_concat_is_its_definition(std::vector<std::int64_t> strides, std::int64_t height, std::int64_t width) {
  Random random;
  const std::int64_t batch = 2, channels = 3;
  std::vector<Floats> maps;
  PixelShuffleConcat<float> shuffle{};
  std::int64_t k = 0;
  for (const std::int64_t stride : strides) {
    maps.push_back(random.normal(batch * channels * height * width));
    shuffle.maps[k] = maps.back().data();
    shuffle.strides[k++] = stride;
  }
  shuffle.batch = batch, shuffle.levels = k, shuffle.channels = channels, shuffle.height = height, shuffle.width = width;
  Floats joined(static_cast<std::size_t>(batch * k * channels * height * width));
  shuffle.joined = joined.data();
  std::vector<double> wanted;
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t level = 0; level < k; ++level) {
      const std::int64_t s = strides[static_cast<std::size_t>(level)], h = height / s, w = width / s;
      for (std::int64_t c = 0; c < channels; ++c) {
        for (std::int64_t y = 0; y < height; ++y) {
          for (std::int64_t x = 0; x < width; ++x) {
            const std::int64_t channel = ((n * channels + c) * s + y % s) * s + x % s;
            wanted.push_back(maps[static_cast<std::size_t>(level)][static_cast<std::size_t>((channel * h + y / s) * w + x / s)]);
          }
        }
      }
    }
  }
  each_way(shuffle, [&] {
    near(joined, wanted, 0.0);
    std::fill(joined.begin(), joined.end(), -1.0f);
  });
}

void clip_backward_is_its_definition(float low, float high) {
  Random random;
  const Floats grad = random.normal(70'001);
  Floats activation = random.normal(70'001, 3.0f);
  for (float& value : activation) value = std::clamp(value, low, high);
  std::vector<double> wanted;
  for (std::size_t i = 0; i < grad.size(); ++i) {
    wanted.push_back(activation[i] > low && activation[i] < high ? grad[i] : 0.0f);
  }
  Floats result(grad.size()), same = grad;
  const auto count = static_cast<std::int64_t>(grad.size());
  each_way(ClipBackward{grad.data(), activation.data(), result.data(), count, low, high}, [&] { near(result, wanted, 0.0); });
  each_way(ClipBackward{same.data(), activation.data(), same.data(), count, low, high}, [&] {
    near(same, wanted, 0.0);
    same = grad;
  });
}

// Small whole numbers, so that most windows have several largest elements and many have none above 0.
void pool_relu_backward_is_its_definition(std::int64_t planes, std::int64_t height, std::int64_t width) {
  Random random;
  const Floats grad = random.normal(planes * height * width);
  Floats activation = random.normal(4 * planes * height * width);
  for (float& value : activation) value = std::max(std::round(value), 0.0f);
  std::vector<double> wanted(activation.size(), 0.0);
  for (std::int64_t row = 0; row < planes * height; ++row) {
    for (std::int64_t x = 0; x < width; ++x) {
      std::int64_t best = (2 * row) * 2 * width + 2 * x;
      for (const std::int64_t step : {std::int64_t{1}, 2 * width, 2 * width + 1}) {
        const std::int64_t place = (2 * row) * 2 * width + 2 * x + step;
        if (activation[static_cast<std::size_t>(place)] > activation[static_cast<std::size_t>(best)]) best = place;
      }
      const auto place = static_cast<std::size_t>(best);
      if (activation[place] > 0.0f) wanted[place] = grad[static_cast<std::size_t>(row * width + x)];
    }
  }
  Floats result(activation.size()), same = activation;
  each_way(PoolReluBackward{grad.data(), activation.data(), result.data(), planes, height, width},
           [&] { near(result, wanted, 0.0); });
  each_way(PoolReluBackward{grad.data(), same.data(), same.data(), planes, height, width}, [&] {
    near(same, wanted, 0.0);
    same = activation;
  });
}

void centred_norm_is_its_definition(std::int64_t batch, std::int64_t rank, std::int64_t pixels) {
  Random random;
  const Floats rows = random.normal(batch * rank * pixels);
  std::vector<double> wanted(rows.size()), wanted_norm(static_cast<std::size_t>(batch * pixels), 0.0);
  for (std::int64_t row = 0; row < batch * rank; ++row) {
    double mean = 0.0;
    for (std::int64_t p = 0; p < pixels; ++p) mean += rows[static_cast<std::size_t>(row * pixels + p)];
    mean /= static_cast<double>(pixels);
    for (std::int64_t p = 0; p < pixels; ++p) {
      const double value = rows[static_cast<std::size_t>(row * pixels + p)] - mean;
      wanted[static_cast<std::size_t>(row * pixels + p)] = value;
      wanted_norm[static_cast<std::size_t>(row / rank * pixels + p)] += value * value;
    }
  }
  Floats centred(rows.size()), norm(wanted_norm.size()), means(static_cast<std::size_t>(rank)), same = rows;
  const double rounding = 1e-6 * static_cast<double>(rank + 4);
  each_way(CentredNorm{rows.data(), centred.data(), norm.data(), means.data(), batch, rank, pixels}, [&] {
    near(centred, wanted, 1e-6);
    near(norm, wanted_norm, rounding);
  });
  each_way(CentredNorm{same.data(), same.data(), norm.data(), means.data(), batch, rank, pixels}, [&] {
    near(same, wanted, 1e-6);
    near(norm, wanted_norm, rounding);
    same = rows;
  });
}

std::vector<double> refined(const AnchorDistance& given) {
  std::vector<double> found;
  for (std::int64_t n = 0; n < given.batch; ++n) {
    const float* z = given.embedding + n * given.rank * given.pixels;
    const float *s = given.salient + n * given.pixels, *prior = given.prior + n * given.pixels;
    double weight = 0.0, other = 0.0;
    for (std::int64_t p = 0; p < given.pixels; ++p) weight += s[p], other += 1.0 - s[p];
    std::vector<double> first, second;
    for (std::int64_t r = 0; r < given.rank; ++r) {
      double total = 0.0, rest = 0.0;
      for (std::int64_t p = 0; p < given.pixels; ++p) {
        total += s[p] * static_cast<double>(z[r * given.pixels + p]);
        rest += (1.0 - s[p]) * static_cast<double>(z[r * given.pixels + p]);
      }
      first.push_back(total / std::max(weight, 1e-6)), second.push_back(rest / std::max(other, 1e-6));
    }
    for (std::int64_t p = 0; p < given.pixels; ++p) {
      double one = 0.0, two = 0.0;
      for (std::int64_t r = 0; r < given.rank; ++r) {
        const double value = z[r * given.pixels + p];
        one += std::pow(value - first[static_cast<std::size_t>(r)], 2);
        two += std::pow(value - second[static_cast<std::size_t>(r)], 2);
      }
      const bool usable = weight > 0.0 && other > 0.0;
      const double value = usable ? exact_sigmoid(given.sharpness * (std::sqrt(two) - std::sqrt(one))) : prior[p];
      found.push_back((given.iteration * prior[p] + value) / (given.iteration + 1.0));
    }
  }
  return found;
}

// Of the pictures one is ordinary, one mostly salient, one has no object, one no background.
void anchor_distance_is_its_definition(std::int64_t rank, std::int64_t pixels) {
  Random random;
  const std::int64_t batch = 4;
  Floats embedding = random.normal(batch * rank * pixels), norm(static_cast<std::size_t>(batch * pixels)), means(static_cast<std::size_t>(rank));
  for (std::int64_t n = 0; n < batch; ++n) {
    float* rows = embedding.data() + n * rank * pixels;
    baseline::run(CentredNorm{rows, rows, norm.data() + n * pixels, means.data(), 1, rank, pixels}, Threads{});
  }
  Floats salient = random.share(batch * pixels), next(salient.size());
  const auto part = [&](std::int64_t n) { return salient.begin() + n * pixels; };
  std::for_each(part(1), part(2), [](float& value) { value = 1.0f - 0.2f * value; });
  std::fill(part(2), part(3), 0.0f), std::fill(part(3), part(4), 1.0f);
  const Floats prior = random.share(batch * pixels);
  Floats sums(static_cast<std::size_t>(anchor_distance_scratch(rank, pixels)));
  AnchorDistance distance{embedding.data(), norm.data(), salient.data(), prior.data(), next.data(), sums.data(),
                          batch, rank, pixels, 2.0f, 1.5f};
  const std::vector<double> wanted = refined(distance);
  each_way(distance, [&] { near(next, wanted, 2e-6); });  // of sums over `rank` in single precision
}

// Nothing is read or written, and nothing divided by.
void empty_pictures_are_nothing() {
  float unused = 7.0f;
  each_way(PoolReluBackward{&unused, &unused, &unused, 3, 2, 0}, [] {});
  each_way(PoolReluBackward{&unused, &unused, &unused, 0, 2, 2}, [] {});
  each_way(ClipBackward{&unused, &unused, &unused, 0, 0.0f, 1.0f}, [] {});
  PixelShuffleConcat<float> shuffle{{&unused}, {2}, &unused, 1, 1, 3, 4, 0};
  each_way(shuffle, [] {});
  each_way(CentredNorm{&unused, &unused, &unused, &unused, 1, 1, 0}, [&] { unused = 7.0f; });
  MaxoutFusion<float> fusion{{&unused}, &unused, &unused, 2, 1, 0};
  each_way(fusion, [] {});
  AnchorDistance distance{&unused, &unused, &unused, &unused, &unused, &unused, 1, 1, 0, 0.0f, 1.0f};
  each_way(distance, [] {});
  CHECK_EQUAL(unused, 7.0f);
}

void half_precision_is_rounded_once() {
  Random random;
  const std::int64_t count = 3000;
  std::vector<Half> maps[2], weights{Half(0.5f), Half(0.75f)}, fused(static_cast<std::size_t>(count));
  MaxoutFusion<Half> fusion{};
  for (int k = 0; k < 2; ++k) {
    for (const float value : random.normal(count, 3.0f)) maps[k].push_back(static_cast<Half>(value));
    fusion.maps[k] = maps[k].data();
  }
  fusion.weights = weights.data(), fusion.fused = fused.data();
  fusion.batch = 1, fusion.scales = 2, fusion.pixels = count;
  each_way(fusion, [&] {
    double worst = 0.0;
    for (std::size_t i = 0; i < fused.size(); ++i) {
      const double wanted = std::max(0.5 * exact_sigmoid(static_cast<float>(maps[0][i])),
                                     0.75 * exact_sigmoid(static_cast<float>(maps[1][i])));
      worst = std::max(worst, std::abs(static_cast<float>(fused[i]) - wanted));
    }
    CHECK_NEAR(worst, 0.0, 2.6e-4);  // half a unit in the last place below 1, 2^-12
  });
}

}  // namespace

int main() {
  for (const std::int64_t pixels : {1, 31, 2048, 2049, 50'000}) maxout_fusion_is_its_definition(2, 3, pixels);
  maxout_fusion_is_its_definition(1, 1, 5);
  maxout_fusion_is_its_definition(1, 8, 100);
  pixel_shuffle_concat_is_its_definition({1, 2, 4, 8, 16}, 32, 48);
  pixel_shuffle_concat_is_its_definition({3, 6, 12, 1, 2}, 24, 36);
  pixel_shuffle_concat_is_its_definition({2, 32}, 64, 4096);
  clip_backward_is_its_definition(0.0f, std::numeric_limits<float>::infinity());
  clip_backward_is_its_definition(0.0f, 6.0f);
  clip_backward_is_its_definition(-1.0f, 1.0f);
  pool_relu_backward_is_its_definition(1, 1, 1);
  pool_relu_backward_is_its_definition(5, 7, 33);
  pool_relu_backward_is_its_definition(2, 56, 40'000);
  centred_norm_is_its_definition(2, 1, 1);
  centred_norm_is_its_definition(2, 13, 4099);
  for (const std::int64_t rank : {1, 8, 21}) anchor_distance_is_its_definition(rank, 4099);
  empty_pictures_are_nothing();
  half_precision_is_rounded_once();
  return salience::test::result();
}
