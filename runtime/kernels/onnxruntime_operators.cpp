#include "onnxruntime_operators.h"

#include "onnxruntime_operator.h"

namespace salience::kernels {
namespace {

constexpr const char* domain = "salience";
// Into how many parts the tasks of a kernel go at most: more than threads, since no part is as long as another.
constexpr std::size_t most_batches = 64;

// The threads of the session that runs the node.
Threads threads_of(const Ort::KernelContext& context) {
  const auto run = [](void* host, Threads::Task task, std::size_t count, void* data) {
    const std::size_t batches = count < most_batches ? count : most_batches;
    static_cast<const Ort::KernelContext*>(host)->ParallelFor(task, count, batches, data);
  };
  return {run, const_cast<Ort::KernelContext*>(&context)};
}

struct Cpu {
  static constexpr const char* name = "CPUExecutionProvider";

  explicit Cpu(const OrtKernelInfo*) {}

  template <typename Given>
  void execute(const Given& given, OrtKernelContext* raw) const {
    const Ort::KernelContext context(raw);
    execute_on(given, threads_of(context));
  }

 private:
  template <typename Given>
  static void execute_on(const Given& given, const Threads& threads) {
    run(given, threads);
  }

  static void execute_on(AnchorDistance distance, const Threads& threads) {
    std::vector<float> sums(static_cast<std::size_t>(anchor_distance_scratch(distance.rank, distance.pixels)));
    distance.sums = sums.data();
    run(distance, threads);
  }

  static void execute_on(CentredNorm centre, const Threads& threads) {
    std::vector<float> means(static_cast<std::size_t>(centre.rank));
    centre.means = means.data();
    run(centre, threads);
  }
};

std::vector<const OrtCustomOp*> cpu_operators() {
  constexpr auto half = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  return {instance<Cpu, MaxoutFusionNode<float>>(), instance<Cpu, MaxoutFusionNode<Half>, half>(),
          instance<Cpu, SubpixelConcatNode<float>>(), instance<Cpu, SubpixelConcatNode<std::uint16_t>, half>(),
          instance<Cpu, ReluBackwardNode>(), instance<Cpu, ClipBackwardNode>(), instance<Cpu, PoolReluBackwardNode>(),
          instance<Cpu, AnchorDistanceNode>(), instance<Cpu, CentredNormNode>()};
}

OrtCustomOpDomain* new_domain() {
  Ort::CustomOpDomain operators(domain);
  for (const OrtCustomOp* each : cpu_operators()) operators.Add(each);
#ifdef SALIENCE_CUDA
  for (const OrtCustomOp* each : cuda_operators()) operators.Add(each);
#endif
  return operators.release();
}

void add_operators(OrtSessionOptions* options) {
  // One for all sessions, each of which reads it for as long as it lives; no one says when the last one ends.
  static OrtCustomOpDomain* const operators = new_domain();
  Ort::ThrowOnError(Ort::GetApi().AddCustomOpDomain(options, operators));
}

}  // namespace
}  // namespace salience::kernels

OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (!api) {
    return base->GetApi(1)->CreateStatus(
        ORT_FAIL, "salience: this ONNX Runtime is older than the kernels were built for; update it.");
  }
  Ort::InitApi(api);
  return salience::kernels::status_of([&] { salience::kernels::add_operators(options); });
}
