#include "tensorrt_plugins.h"

#include <cstring>
#include <new>
#include <tuple>
#include <type_traits>
#include <vector>

#include "tensorrt_operations.h"

// Whoever loads this library without TensorRT, for ONNX Runtime, has no registry.
#pragma weak getPluginRegistry

namespace salience::kernels {
namespace {

using namespace nvinfer1;

constexpr const char *plugin_version = "1", *plugin_namespace = "salience";

template <typename Value>
constexpr PluginFieldType field_type =
    std::is_same_v<Value, float> ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32;

template <typename Operation>
std::vector<PluginField> fields_of(const Operation& operation) {
  std::vector<PluginField> found;
  Operation::visit_attributes(operation, [&]<typename Value>(const char* name, const Value& value) {
    found.emplace_back(name, &value, field_type<Value>, 1);
  });
  return found;
}

// The same as `fields_of`, without values.
template <typename Operation>
std::vector<PluginField> field_names_of() {
  std::vector<PluginField> found = fields_of(Operation{});
  for (PluginField& field : found) field.data = nullptr;
  return found;
}

const PluginField* field_of(const PluginFieldCollection& given, const char* name, PluginFieldType type) {
  for (std::int32_t index = 0; index < given.nbFields; ++index) {
    const PluginField& field = given.fields[index];
    if (std::strcmp(field.name, name) == 0) return field.type == type && field.length == 1 ? &field : nullptr;
  }
  return nullptr;
}

// Whether every attribute was there.
template <typename Operation>
bool read_fields(const PluginFieldCollection& given, Operation& operation) {
  bool complete = true;
  Operation::visit_attributes(operation, [&]<typename Value>(const char* name, Value& value) {
    const PluginField* field = field_of(given, name, field_type<Value>);
    complete = complete && field;
    if (field) std::memcpy(&value, field->data, sizeof(Value));
  });
  return complete;
}

template <typename Operation>
class Plugin final : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  explicit Plugin(const Operation& operation) : operation_(operation) {}
  Plugin(const Plugin&) = delete;  // fields point to the object's own attributes
  Plugin& operator=(const Plugin&) = delete;

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(operation_); }
  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  const char* getPluginName() const noexcept override { return Operation::name; }
  const char* getPluginVersion() const noexcept override { return plugin_version; }
  const char* getPluginNamespace() const noexcept override { return plugin_namespace; }

  std::int32_t getNbOutputs() const noexcept override { return Operation::outputs; }

  std::int32_t configurePlugin(const DynamicPluginTensorDesc*, std::int32_t inputs, const DynamicPluginTensorDesc*,
                               std::int32_t outputs) noexcept override {
    return inputs == Operation::inputs && outputs == Operation::outputs ? 0 : 1;
  }

  std::int32_t getOutputDataTypes(DataType* found, std::int32_t outputs, const DataType* given,
                                  std::int32_t inputs) const noexcept override {
    if (inputs != Operation::inputs || outputs != Operation::outputs) return 1;
    for (std::int32_t index = 0; index < outputs; ++index) found[index] = given[0];
    return 0;
  }

  std::int32_t getOutputShapes(const DimsExprs* given, std::int32_t inputs, const DimsExprs*, std::int32_t,
                               DimsExprs* found, std::int32_t outputs, IExprBuilder& builder) noexcept override {
    if (inputs != Operation::inputs || outputs != Operation::outputs) return 1;
    operation_.find_shapes(given, found, Expressions{builder});
    return 0;
  }

  bool supportsFormatCombination(std::int32_t position, const DynamicPluginTensorDesc* tensors, std::int32_t,
                                 std::int32_t) noexcept override {
    const PluginTensorDesc& tensor = tensors[position].desc;
    const bool known = tensor.type == DataType::kFLOAT || (Operation::takes_half && tensor.type == DataType::kHALF);
    return known && tensor.format == TensorFormat::kLINEAR && tensor.type == tensors[0].desc.type;
  }

  std::size_t getWorkspaceSize(const DynamicPluginTensorDesc* given, std::int32_t, const DynamicPluginTensorDesc*,
                               std::int32_t) const noexcept override {
    return operation_.workspace_bytes(given[0].max);
  }

  std::int32_t onShapeChange(const PluginTensorDesc* given, std::int32_t, const PluginTensorDesc*,
                             std::int32_t) noexcept override {
    return operation_.takes(given) ? 0 : 1;
  }

  std::int32_t enqueue(const PluginTensorDesc* given, const PluginTensorDesc*, const void* const* inputs,
                       void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    return static_cast<std::int32_t>(operation_.launch(given, Memory{inputs, outputs, workspace}, stream));
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
    return &collection_;
  }

 private:
  Operation operation_;
  std::vector<PluginField> fields_ = fields_of(operation_);
  PluginFieldCollection collection_{};
};

template <typename Operation>
class Creator final : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(const char*, const PluginFieldCollection* given, TensorRTPhase) noexcept override {
    Operation operation{};
    if (!given || !read_fields(*given, operation)) return nullptr;
    return new (std::nothrow) Plugin<Operation>(operation);
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

  const char* getPluginName() const noexcept override { return Operation::name; }
  const char* getPluginVersion() const noexcept override { return plugin_version; }
  const char* getPluginNamespace() const noexcept override { return plugin_namespace; }

 private:
  std::vector<PluginField> fields_ = field_names_of<Operation>();
  PluginFieldCollection collection_{static_cast<std::int32_t>(fields_.size()), fields_.data()};
};

template <typename... Operations>
const std::vector<IPluginCreatorInterface*>& creators_of() {
  static std::tuple<Creator<Operations>...> creators;
  static const std::vector<IPluginCreatorInterface*> found{&std::get<Creator<Operations>>(creators)...};
  return found;
}

const std::vector<IPluginCreatorInterface*>& creators() {
  return creators_of<MaxoutFusionOperation, SubpixelConcatOperation, ReluBackwardOperation, ClipBackwardOperation,
                     PoolReluBackwardOperation, AnchorDistanceOperation, CentredNormOperation>();
}

}  // namespace
}  // namespace salience::kernels

bool salience_register_tensorrt_plugins() {
  if (!getPluginRegistry) return false;
  bool registered = true;
  for (nvinfer1::IPluginCreatorInterface* each : salience::kernels::creators()) {
    registered = getPluginRegistry()->registerCreator(*each, salience::kernels::plugin_namespace) && registered;
  }
  return registered;
}

nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
  count = static_cast<std::int32_t>(salience::kernels::creators().size());
  return salience::kernels::creators().data();
}

void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
