#include "onnxruntime_operators.h"

#include <exception>
#include <memory>

#include "onnxruntime_tensors.h"

namespace salience::kernels {
namespace {

constexpr const char* domain = "salience";
// Into how many parts the tasks of a kernel go at most: more than threads, since no part is as long as another.
constexpr std::size_t most_batches = 64;

// The threads of the session that runs the node.
Threads threads_of(const Ort::KernelContext& context) {
  const auto run = [](void* host, Threads::Task task, std::size_t count, void* data) {
    static_cast<const Ort::KernelContext*>(host)->ParallelFor(task, count, count < most_batches ? count : most_batches, data);
  };
  return {run, const_cast<Ort::KernelContext*>(&context)};
}

void execute(AnchorDistance distance, const Threads& threads) {
  std::vector<float> sums(static_cast<std::size_t>(anchor_distance_scratch(distance.rank, distance.pixels)));
  distance.sums = sums.data();
  run(distance, threads);
}

void execute(CentredNorm centre, const Threads& threads) {
  std::vector<float> means(static_cast<std::size_t>(centre.rank));
  centre.means = means.data();
  run(centre, threads);
}

template <typename Operator>
void execute(const Operator& given, const Threads& threads) {
  run(given, threads);
}

template <typename Node>
struct Kernel {
  explicit Kernel(const OrtKernelInfo* info) : node(Ort::ConstKernelInfo(info)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) const {
    try {
      const Ort::KernelContext context(raw);
      execute(node(context), threads_of(context));
      return nullptr;
    } catch (const Ort::Exception& error) {
      return Ort::GetApi().CreateStatus(error.GetOrtErrorCode(), error.what());
    } catch (const std::exception& error) {
      return Ort::GetApi().CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
    }
  }

  Node node;
};

template <typename Node, ONNXTensorElementDataType type>
struct Operator : Ort::CustomOpBase<Operator<Node, type>, Kernel<Node>, true> {
  Operator() {
    if constexpr (requires { Node::overwrites; }) {
      // Allocated, since whoever asks also releases it; the answer is the same every time.
      this->GetMayInplace = [](int** from, int** to) -> std::size_t {
        *from = new int(Node::overwrites);
        *to = new int(0);
        return 1;
      };
      this->ReleaseMayInplace = [](int* from, int* to) {
        delete from;
        delete to;
      };
    }
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    try {
      *kernel = std::make_unique<Kernel<Node>>(info).release();
      return nullptr;
    } catch (const Ort::Exception& error) {
      return Ort::GetApi().CreateStatus(error.GetOrtErrorCode(), error.what());
    }
  }

  const char* GetName() const { return Node::name; }
  const char* GetExecutionProviderType() const { return "CPUExecutionProvider"; }
  std::size_t GetInputTypeCount() const { return Node::inputs; }
  ONNXTensorElementDataType GetInputType(std::size_t) const { return type; }
  std::size_t GetOutputTypeCount() const {
    if constexpr (requires { Node::outputs; }) return Node::outputs;
    return 1;
  }
  ONNXTensorElementDataType GetOutputType(std::size_t) const { return type; }
};

template <typename Node, ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT>
const OrtCustomOp* instance() {
  static const Operator<Node, type> found;
  return &found;
}

void add_operators(OrtSessionOptions* options) {
  constexpr auto half = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  Ort::CustomOpDomain operators(domain);
  for (const OrtCustomOp* each :
       {instance<MaxoutFusionNode<float>>(), instance<MaxoutFusionNode<Half>, half>(),
        instance<SubpixelConcatNode<float>>(), instance<SubpixelConcatNode<std::uint16_t>, half>(),
        instance<ReluBackwardNode>(), instance<ClipBackwardNode>(), instance<PoolReluBackwardNode>(),
        instance<AnchorDistanceNode>(), instance<CentredNormNode>()}) {
    operators.Add(each);
  }
  Ort::UnownedSessionOptions(options).Add(operators);
  // A session reads its domains for as long as it lives, and no one says when the last one ends.
  static_cast<void>(operators.release());
}

}  // namespace
}  // namespace salience::kernels

OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_FAIL, "salience: this ONNX Runtime is older than the kernels were built for; update it.");
  Ort::InitApi(api);
  try {
    salience::kernels::add_operators(options);
    return nullptr;
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
  }
}
