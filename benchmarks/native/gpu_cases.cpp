#include "gpu_cases.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <type_traits>

#include "dispatch.h"
#include "launch.h"

namespace salience::gpu {
namespace {

using namespace salience::kernels;

enum class Place { host, device };

// The same elements on the host and on the device.
template <typename Value>
class Array {
 public:
  explicit Array(std::vector<Value> values) : host_(std::move(values)), device_(device_memory(bytes())) {
    require(cudaMemcpy(device_.get(), host_.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }

  Value* at(Place place) { return place == Place::host ? host_.data() : static_cast<Value*>(device_.get()); }
  std::size_t bytes() const { return host_.size() * sizeof(Value); }
  void forget_device() { require(cudaMemset(device_.get(), 0xff, bytes()), "cudaMemset"); }

  // The largest difference of the two; infinite where one is no number.
  double difference() const {
    std::vector<Value> found(host_.size());
    require(cudaMemcpy(found.data(), device_.get(), bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    double worst = 0.0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double apart = std::abs(static_cast<double>(found[i]) - static_cast<double>(host_[i]));
      worst = apart <= worst ? worst : std::isnan(apart) ? std::numeric_limits<double>::infinity() : apart;
    }
    return worst;
  }

 private:
  std::vector<Value> host_;
  DeviceMemory device_;
};

template <typename Value>
using Shared = std::shared_ptr<Array<Value>>;

std::mt19937& random_engine() {
  static std::mt19937 engine{1};
  return engine;
}

using Change = std::function<float(float)>;

float same(float x) { return x; }

template <typename Value, typename Distribution>
Shared<Value> drawn(std::int64_t count, Distribution distribution, const Change& change) {
  std::vector<Value> values(static_cast<std::size_t>(count));
  for (Value& value : values) value = static_cast<Value>(change(distribution(random_engine())));
  return std::make_shared<Array<Value>>(std::move(values));
}

template <typename Value = float>
Shared<Value> normal(std::int64_t count, float scale = 1.0f, const Change& change = same) {
  return drawn<Value>(count, std::normal_distribution<float>(0.0f, scale), change);
}

template <typename Value = float>
Shared<Value> share(std::int64_t count) {
  return drawn<Value>(count, std::uniform_real_distribution<float>(0.0f, 1.0f), same);
}

template <typename Value = float>
Shared<Value> zeros(std::int64_t count) {
  return std::make_shared<Array<Value>>(std::vector<Value>(static_cast<std::size_t>(count)));
}

std::string text(std::initializer_list<std::int64_t> sizes) {
  std::string found;
  for (const std::int64_t size : sizes) found += (found.empty() ? "" : " x ") + std::to_string(size);
  return found;
}

// `outputs` are looked at after each run.
template <typename Value>
void look_at(Case& found, std::vector<Shared<Value>> outputs) {
  found.forget = [outputs] {
    for (const auto& each : outputs) each->forget_device();
  };
  found.difference = [outputs] {
    double worst = 0.0;
    for (const auto& each : outputs) worst = std::max(worst, each->difference());
    return worst;
  };
}

// The type of half precision that CUDA has has another name on the host.
template <typename Value>
using OnDevice = std::conditional_t<std::is_same_v<Value, Half>, __half, Value>;

template <typename Value>
Case maxout_fusion(std::int64_t batch, std::int64_t pixels) {
  constexpr std::int64_t scales = 3;
  std::vector<Shared<Value>> maps;
  for (std::int64_t k = 0; k < scales; ++k) maps.push_back(normal<Value>(batch * pixels, 4.0f));
  const auto weights = share<Value>(batch * scales), fused = zeros<Value>(batch * pixels);
  const auto fill = [=]<typename Type>(MaxoutFusion<Type> fusion, Place place) {
    for (std::int64_t k = 0; k < scales; ++k) {
      fusion.maps[k] = reinterpret_cast<const Type*>(maps[static_cast<std::size_t>(k)]->at(place));
    }
    fusion.weights = reinterpret_cast<const Type*>(weights->at(place));
    fusion.fused = reinterpret_cast<Type*>(fused->at(place));
    fusion.batch = batch, fusion.scales = scales, fusion.pixels = pixels;
    return fusion;
  };
  // Two last places: of the exponentials, or of rounding to half precision.
  Case found{sizeof(Value) == 2 ? "MaxoutFusion, fp16" : "MaxoutFusion", text({scales, batch, pixels}),
             (scales + 1) * fused->bytes(), sizeof(Value) == 2 ? 1e-3 : 6e-7};
  found.run_on_cpu = [=] { run(fill(MaxoutFusion<Value>{}, Place::host), Threads{}); };
  found.launch = [=](cudaStream_t stream) {
    return launch(fill(MaxoutFusion<OnDevice<Value>>{}, Place::device), stream);
  };
  look_at<Value>(found, {fused});
  return found;
}

template <typename Value>
Case pixel_shuffle_concat(const std::vector<std::int64_t>& strides, std::int64_t channels, std::int64_t height,
                          std::int64_t width) {
  const std::int64_t size = channels * height * width, levels = static_cast<std::int64_t>(strides.size());
  std::vector<Shared<Value>> maps;
  // Whole numbers, which fit any type.
  for (std::int64_t k = 0; k < levels; ++k) {
    maps.push_back(normal<Value>(size, 1000.0f, [](float x) { return std::round(std::abs(x)); }));
  }
  const auto joined = zeros<Value>(levels * size);
  const auto fill = [=](Place place) {
    PixelShuffleConcat<Value> shuffle{};
    for (std::size_t k = 0; k < maps.size(); ++k) shuffle.maps[k] = maps[k]->at(place), shuffle.strides[k] = strides[k];
    shuffle.joined = joined->at(place), shuffle.batch = 1, shuffle.levels = levels, shuffle.channels = channels;
    shuffle.height = height, shuffle.width = width;
    return shuffle;
  };
  Case found{sizeof(Value) == 2 ? "SubpixelConcat, fp16" : "SubpixelConcat", text({levels, channels, height, width}),
             2 * joined->bytes(), 0.0};
  found.run_on_cpu = [=] { run(fill(Place::host), Threads{}); };
  found.launch = [=](cudaStream_t stream) { return launch(fill(Place::device), stream); };
  look_at<Value>(found, {joined});
  return found;
}

Case clip_backward(const std::string& name, std::int64_t count, float high) {
  const auto grad = normal(count), result = zeros(count);
  const auto activation = normal(count, 3.0f, [high](float x) { return std::clamp(x, 0.0f, high); });
  const auto fill = [=](Place place) {
    return ClipBackward{grad->at(place), activation->at(place), result->at(place), count, 0.0f, high};
  };
  Case found{name, text({count}), 3 * result->bytes(), 0.0};
  found.run_on_cpu = [=] { run(fill(Place::host), Threads{}); };
  found.launch = [=](cudaStream_t stream) { return launch(fill(Place::device), stream); };
  look_at<float>(found, {result});
  return found;
}

// Small whole numbers, so that many windows have several largest elements.
Case pool_relu_backward(std::int64_t planes, std::int64_t height, std::int64_t width) {
  const std::int64_t windows = planes * height * width;
  const auto grad = normal(windows), result = zeros(4 * windows);
  const auto activation = normal(4 * windows, 1.0f, [](float x) { return std::max(std::round(x), 0.0f); });
  const auto fill = [=](Place place) {
    return PoolReluBackward{grad->at(place), activation->at(place), result->at(place), planes, height, width};
  };
  Case found{"PoolReluBackward", text({planes, height, width}), grad->bytes() + 2 * result->bytes(), 0.0};
  found.run_on_cpu = [=] { run(fill(Place::host), Threads{}); };
  found.launch = [=](cudaStream_t stream) { return launch(fill(Place::device), stream); };
  look_at<float>(found, {result});
  return found;
}

Shared<float> scratch(std::size_t bytes) { return zeros(static_cast<std::int64_t>(bytes / sizeof(float))); }

Case centred_norm(std::int64_t batch, std::int64_t rank, std::int64_t pixels) {
  const auto rows = normal(batch * rank * pixels), centred = zeros(batch * rank * pixels), norm = zeros(batch * pixels);
  const auto means = scratch(centred_norm_scratch_bytes(batch, rank, pixels));
  const auto fill = [=](Place place) {
    return CentredNorm{rows->at(place), centred->at(place), norm->at(place), means->at(place), batch, rank, pixels};
  };
  const double rounding = 1e-6 * static_cast<double>(rank + 4);  // of sums of `rank` squares in single precision
  Case found{"CentredNorm", text({batch, rank, pixels}), 3 * rows->bytes() + norm->bytes(), rounding};
  found.run_on_cpu = [=] { run(fill(Place::host), Threads{}); };
  found.launch = [=](cudaStream_t stream) { return launch(fill(Place::device), stream); };
  look_at<float>(found, {centred, norm});
  return found;
}

Shared<float> changed(const Shared<float>& array, const std::function<void(float*)>& change) {
  std::vector<float> values(array->at(Place::host), array->at(Place::host) + array->bytes() / sizeof(float));
  change(values.data());
  return std::make_shared<Array<float>>(std::move(values));
}

// Embeddings are centred; the first picture is ordinary, the second, where there is one, has no object.
Case anchor_distance(std::int64_t batch, std::int64_t rank, std::int64_t pixels) {
  std::vector<float> means(static_cast<std::size_t>(rank)), squares(static_cast<std::size_t>(batch * pixels));
  const auto embedding = changed(normal(batch * rank * pixels), [&](float* rows) {
    run(CentredNorm{rows, rows, squares.data(), means.data(), batch, rank, pixels}, Threads{});
  });
  const auto norm = std::make_shared<Array<float>>(squares);
  const auto prior = share(batch * pixels), next = zeros(batch * pixels);
  const auto salient = changed(share(batch * pixels), [&](float* values) {
    if (batch > 1) std::fill(values + pixels, values + 2 * pixels, 0.0f);
  });
  const auto iteration = std::make_shared<Array<float>>(std::vector<float>{2.0f});
  const auto host_sums = zeros(anchor_distance_scratch(rank, pixels));
  const auto device_sums = scratch(anchor_distance_scratch_bytes(batch, rank, pixels));
  const auto fill = [=](Place place) {
    float* sums = (place == Place::host ? host_sums : device_sums)->at(place);
    return AnchorDistance{embedding->at(place), norm->at(place), salient->at(place), prior->at(place), next->at(place),
                          sums, batch, rank, pixels, 2.0f, 1.5f};
  };
  Case found{"AnchorDistance", text({batch, rank, pixels}), 2 * embedding->bytes() + 4 * next->bytes(), 5e-6};
  found.run_on_cpu = [=] { run(fill(Place::host), Threads{}); };
  found.launch = [=](cudaStream_t stream) {
    return launch(AnchorDistanceOnDevice{fill(Place::device), iteration->at(Place::device)}, stream);
  };
  look_at<float>(found, {next});
  return found;
}

}  // namespace

void require(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error("kernels_gpu: " + what + " gave \"" + cudaGetErrorString(status) +
                           "\", expected success; see that no other program holds the GPU or its memory.");
}

DeviceMemory device_memory(std::size_t bytes) {
  void* memory = nullptr;
  require(cudaMalloc(&memory, std::max<std::size_t>(bytes, 1)), "cudaMalloc");
  return DeviceMemory(memory);
}

std::vector<std::function<Case()>> all_cases() {
  using Sizes = std::pair<std::int64_t, std::int64_t>;
  const float none = std::numeric_limits<float>::infinity();
  std::vector<std::function<Case()>> found;
  for (const auto& [batch, pixels] : {Sizes{8, 224 * 224}, {3, 333 * 251}, {8, 2048 * 2048}}) {
    found.push_back([=] { return maxout_fusion<float>(batch, pixels); });
    found.push_back([=] { return maxout_fusion<Half>(batch, pixels); });
  }
  for (const std::int64_t channels : {64, 256}) {
    found.push_back([=] { return pixel_shuffle_concat<float>({2, 4, 8, 16, 32}, channels, 224, 224); });
    found.push_back([=] { return pixel_shuffle_concat<std::uint16_t>({2, 4, 8, 16, 32}, channels, 224, 224); });
  }
  found.push_back([] { return pixel_shuffle_concat<float>({3, 9, 1}, 16, 297, 333); });
  for (const std::int64_t count : {64 * 224 * 224, 1'000'003, 64 * 1024 * 1024}) {
    found.push_back([=] { return clip_backward("ReluBackward", count, none); });
    found.push_back([=] { return clip_backward("ClipBackward", count, 6.0f); });
  }
  for (const std::int64_t side : {112, 113, 512}) found.push_back([=] { return pool_relu_backward(64, side, side); });
  for (const auto& [batch, pixels] : {Sizes{1, 224 * 224}, {2, 10'001}, {8, 224 * 224}}) {
    found.push_back([=] { return centred_norm(batch, 320, pixels); });
    found.push_back([=] { return anchor_distance(batch, 320, pixels); });
  }
  return found;
}

}  // namespace salience::gpu
