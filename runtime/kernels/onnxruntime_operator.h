// A node of `onnxruntime_tensors.h` as an operator of ONNX Runtime, for any execution provider.
#pragma once

#include <exception>
#include <memory>
#include <vector>

#include "onnxruntime_tensors.h"

namespace salience::kernels {

template <typename Call>
OrtStatusPtr status_of(const Call& call) {
  try {
    call();
    return nullptr;
  } catch (const Ort::Exception& error) {
    return Ort::GetApi().CreateStatus(error.GetOrtErrorCode(), error.what());
  } catch (const std::exception& error) {
    return Ort::GetApi().CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
  }
}

// `Provider` has: `name`, ONNX Runtime's; a constructor that takes the node's OrtKernelInfo; `execute`, which takes
// what the node makes of its inputs and outputs, and the context that they come from.
template <typename Provider, typename Node>
struct Kernel {
  explicit Kernel(const OrtKernelInfo* info) : provider(info), node(Ort::ConstKernelInfo(info)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return status_of([&] { provider.execute(node(Ort::KernelContext(context)), context); });
  }

  Provider provider;
  Node node;
};

template <typename Provider, typename Node, ONNXTensorElementDataType type>
struct Operator : Ort::CustomOpBase<Operator<Provider, Node, type>, Kernel<Provider, Node>, true> {
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
    return status_of([&] { *kernel = std::make_unique<Kernel<Provider, Node>>(info).release(); });
  }

  const char* GetName() const { return Node::name; }
  const char* GetExecutionProviderType() const { return Provider::name; }
  std::size_t GetInputTypeCount() const { return Node::inputs; }
  ONNXTensorElementDataType GetInputType(std::size_t) const { return type; }
  std::size_t GetOutputTypeCount() const {
    if constexpr (requires { Node::outputs; }) return Node::outputs;
    return 1;
  }
  ONNXTensorElementDataType GetOutputType(std::size_t) const { return type; }
};

template <typename Provider, typename Node, ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT>
const OrtCustomOp* instance() {
  static const Operator<Provider, Node, type> found;
  return &found;
}

#ifdef SALIENCE_CUDA
// Those of the CUDA provider.
std::vector<const OrtCustomOp*> cuda_operators();
#endif

}  // namespace salience::kernels
