// The operators for ONNX Runtime's CUDA provider: on its stream, with its memory.
#include "launch.h"
#include "onnxruntime_operator.h"

namespace salience::kernels {
namespace {

void require(cudaError_t status) {
  if (status == cudaSuccess) return;
  throw Ort::Exception(std::string("salience: a CUDA kernel gave \"") + cudaGetErrorString(status) +
                           "\", expected it to run; build the library with CMAKE_CUDA_ARCHITECTURES for this GPU, or "
                           "run without fused kernels.",
                       ORT_EP_FAIL);
}

struct ReleaseAllocator {
  void operator()(OrtAllocator* allocator) const { Ort::GetApi().ReleaseAllocator(allocator); }
};

using DeviceAllocator = std::unique_ptr<OrtAllocator, ReleaseAllocator>;

DeviceAllocator allocator_of(const OrtKernelInfo* info) {
  OrtAllocator* found = nullptr;
  Ort::ThrowOnError(Ort::GetApi().KernelInfoGetAllocator(info, OrtMemTypeDefault, &found));
  return DeviceAllocator(found);
}

// Device memory until the end of a node. It is taken for the node's stream, so that no other stream gets it while the
// kernels, which are only on their way then, still use it.
class Scratch {
 public:
  Scratch(OrtAllocator* allocator, const OrtKernelContext* context, std::size_t bytes) : allocator_(allocator) {
    const OrtMemoryInfo* device = nullptr;
    Ort::ThrowOnError(Ort::GetApi().AllocatorGetInfo(allocator, &device));
    Ort::ThrowOnError(Ort::GetApi().KernelContext_GetScratchBuffer(context, device, bytes, &memory_));
  }
  ~Scratch() {
    if (memory_) allocator_->Free(allocator_, memory_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* floats() const { return static_cast<float*>(memory_); }

 private:
  OrtAllocator* allocator_;
  void* memory_ = nullptr;
};

struct Cuda {
  static constexpr const char* name = "CUDAExecutionProvider";

  explicit Cuda(const OrtKernelInfo* info) : allocator(allocator_of(info)) {}

  template <typename Given>
  void execute(const Given& given, OrtKernelContext* context) const {
    const auto stream = static_cast<cudaStream_t>(Ort::KernelContext(context).GetGPUComputeStream());
    execute_on(given, context, stream);
  }

  template <typename Given>
  void execute_on(const Given& given, OrtKernelContext*, cudaStream_t stream) const {
    require(launch(given, stream));
  }

  void execute_on(AnchorDistanceOnDevice distance, OrtKernelContext* context, cudaStream_t stream) const {
    AnchorDistance& operation = distance.operation;
    const std::size_t bytes = anchor_distance_scratch_bytes(operation.batch, operation.rank, operation.pixels);
    const Scratch sums(allocator.get(), context, bytes);
    operation.sums = sums.floats();
    require(launch(distance, stream));
  }

  void execute_on(CentredNorm centre, OrtKernelContext* context, cudaStream_t stream) const {
    const Scratch means(allocator.get(), context, centred_norm_scratch_bytes(centre.batch, centre.rank, centre.pixels));
    centre.means = means.floats();
    require(launch(centre, stream));
  }

  DeviceAllocator allocator;
};

struct AnchorDistanceOnDeviceNode : AnchorDistanceNode {
  using AnchorDistanceNode::AnchorDistanceNode;

  AnchorDistanceOnDevice operator()(const Ort::KernelContext& context) const {
    return {without_iteration(context), input<float>(context, 4).data};
  }
};

}  // namespace

std::vector<const OrtCustomOp*> cuda_operators() {
  constexpr auto half = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  return {instance<Cuda, MaxoutFusionNode<float>>(), instance<Cuda, MaxoutFusionNode<__half>, half>(),
          instance<Cuda, SubpixelConcatNode<float>>(), instance<Cuda, SubpixelConcatNode<std::uint16_t>, half>(),
          instance<Cuda, ReluBackwardNode>(), instance<Cuda, ClipBackwardNode>(),
          instance<Cuda, PoolReluBackwardNode>(), instance<Cuda, AnchorDistanceOnDeviceNode>(),
          instance<Cuda, CentredNormNode>()};
}

}  // namespace salience::kernels
