#include "open_session.hpp"

#include <onnxruntime_operators.h>

#include <algorithm>

#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

struct CudaOptionsRelease {
  void operator()(OrtCUDAProviderOptionsV2* options) const { Ort::GetApi().ReleaseCUDAProviderOptions(options); }
};

void add_cuda(Ort::SessionOptions& settings, const std::string& file, const EngineOptions& options) {
  try {
    OrtCUDAProviderOptionsV2* made = nullptr;
    Ort::ThrowOnError(Ort::GetApi().CreateCUDAProviderOptions(&made));
    const std::unique_ptr<OrtCUDAProviderOptionsV2, CudaOptionsRelease> cuda(made);
    const std::string index = std::to_string(options.device_index());
    const char* name = "device_id";
    const char* value = index.c_str();
    Ort::ThrowOnError(Ort::GetApi().UpdateCUDAProviderOptions(cuda.get(), &name, &value, 1));
    settings.AppendExecutionProvider_CUDA_V2(*cuda);
  } catch (const Ort::Exception& error) {
    throw BackendUnavailableError("onnxruntime: " + options.provider() + " failed to start for " + file + " (" +
                                  first_line(error) + "); check the driver and CUDA libraries, or ask for device cpu");
  }
}

Ort::SessionOptions settings_for(const std::string& file, const std::string& precision, const EngineOptions& options) {
  Ort::SessionOptions settings;
  settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
  // Without it threads go on waiting in a loop after a call and take the cores from the next session's.
  settings.AddConfigEntry("session.force_spinning_stop", "1");
  if (options.threads > 0) settings.SetIntraOpNumThreads(options.threads);
  if (options.on_gpu()) add_cuda(settings, file, options);
  if (takes_kernels(precision, options)) Ort::ThrowOnError(RegisterCustomOps(settings, OrtGetApiBase()));
  return settings;
}

}  // namespace

bool takes_kernels(const std::string& precision, const EngineOptions& options) {
  return options.fused_kernels && !options.on_gpu() && precision != "fp16";
}

void require_provider(const EngineOptions& options) {
  const std::vector<std::string> present = Ort::GetAvailableProviders();
  if (std::ranges::find(present, options.provider()) != present.end()) return;
  throw BackendUnavailableError("onnxruntime " + Ort::GetVersionString() + ": no " + options.provider() +
                                " for device " + options.device +
                                " in this build; run: pip uninstall onnxruntime; pip install 'salience[gpu]'");
}

std::unique_ptr<Ort::Session> open_session(const Ort::Env& environment, const std::filesystem::path& path,
                                           const std::string& precision, const EngineOptions& options) {
  require_provider(options);
  if (precision == "bf16") {
    throw BackendUnavailableError(
        "onnxruntime: has no kernels in bf16 for all layers of these graphs; choose precision fp16.");
  }
  const std::string file = path.filename().string();
  try {
    return std::make_unique<Ort::Session>(environment, path.c_str(), settings_for(file, precision, options));
  } catch (const Ort::Exception& error) {
    throw EngineError("onnxruntime: cannot load " + file + " (" + first_line(error) + ").");
  }
}

}  // namespace salience
