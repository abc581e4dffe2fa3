// The CUDA kernels on a GPU: the results of each beside the CPU kernel's, launched and replayed from a CUDA graph, and
// the time of the replay beside that of a copy on the device which moves as many bytes.
//
// CMake builds it with SALIENCE_CUDA; where there is only nvcc, from the repository's root:
//
//   sources="benchmarks/native/*.cpp runtime/kernels/*.cu $(ls runtime/kernels/*.cpp | grep -v -e onnx -e tensorrt)"
//   nvcc -std=c++20 -O3 -arch=native -DSALIENCE_SET=baseline -Iruntime/kernels -o kernels_gpu $sources
//
// It ends with 0, with 1 where a result differs, and with 77 where there is no GPU.
#include <cstdio>
#include <exception>

#include "gpu_cases.h"

namespace {

using namespace salience::gpu;

class Stream {
 public:
  Stream() { require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  void wait() const { require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Graph {
 public:
  Graph(const Stream& stream, const std::function<cudaError_t(cudaStream_t)>& launch) {
    require(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    const cudaError_t status = launch(stream.get());
    require(cudaStreamEndCapture(stream.get(), &graph_), "cudaStreamEndCapture");
    require(status, "a captured launch");
    require(cudaGraphInstantiate(&instance_, graph_, 0), "cudaGraphInstantiate");
  }
  ~Graph() { cudaGraphExecDestroy(instance_), cudaGraphDestroy(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void replay(const Stream& stream) const { require(cudaGraphLaunch(instance_, stream.get()), "cudaGraphLaunch"); }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t instance_ = nullptr;
};

// Microseconds of a replay, the mean of many.
double replay_us(const Graph& graph, const Stream& stream) {
  constexpr int warm_up = 5, replays = 50;
  cudaEvent_t start, stop;
  require(cudaEventCreate(&start), "cudaEventCreate"), require(cudaEventCreate(&stop), "cudaEventCreate");
  for (int i = 0; i < warm_up; ++i) graph.replay(stream);
  require(cudaEventRecord(start, stream.get()), "cudaEventRecord");
  for (int i = 0; i < replays; ++i) graph.replay(stream);
  require(cudaEventRecord(stop, stream.get()), "cudaEventRecord");
  stream.wait();
  float elapsed_ms = 0.0f;
  require(cudaEventElapsedTime(&elapsed_ms, start, stop), "cudaEventElapsedTime");
  cudaEventDestroy(start), cudaEventDestroy(stop);
  return 1e3 * elapsed_ms / replays;
}

double copy_us(std::size_t bytes, const Stream& stream) {
  const auto from = device_memory(bytes / 2), to = device_memory(bytes / 2);
  const Graph graph(stream, [&](cudaStream_t on) {
    return cudaMemcpyAsync(to.get(), from.get(), bytes / 2, cudaMemcpyDeviceToDevice, on);
  });
  return replay_us(graph, stream);
}

// Prints the row of a case; whether its results are right.
bool measure(const Case& given, const Stream& stream) {
  given.run_on_cpu();
  given.forget();
  require(given.launch(stream.get()), given.name);
  stream.wait();
  const double launched = given.difference();
  const Graph graph(stream, given.launch);
  given.forget();
  graph.replay(stream);
  stream.wait();
  const double replayed = given.difference();
  const double kernel = replay_us(graph, stream), copy = copy_us(given.bytes, stream);
  const bool right = launched <= given.tolerance && replayed <= given.tolerance;
  std::printf("%-22s %-22s %9.1f %10.1e %10.1e %10.1f %10.1f %8.0f %%  %s\n", given.name.c_str(), given.sizes.c_str(),
              static_cast<double>(given.bytes) / 1e6, launched, replayed, kernel, copy, 100.0 * copy / kernel,
              right ? "right" : "WRONG");
  std::fflush(stdout);
  return right;
}

bool measure_all() {
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  std::printf("%s, compute capability %d.%d\n", properties.name, properties.major, properties.minor);
  std::printf("%-22s %-22s %9s %10s %10s %10s %10s %10s\n", "operator", "sizes", "MB", "launched", "replayed", "us",
              "copy us", "of copy");
  const Stream stream;
  bool right = true;
  for (const auto& make : all_cases()) right = measure(make(), stream) && right;
  return right;
}

}  // namespace

int main() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("kernels_gpu: got no GPU (%s), expected one with its driver; run this on a machine that has both.\n",
                cudaGetErrorString(status));
    return 77;
  }
  try {
    return measure_all() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
