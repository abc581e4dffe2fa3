// Opens ONNX files.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <filesystem>
#include <memory>
#include <string>

#include "engine_options.hpp"

namespace salience {

// Throws BackendUnavailableError where this build of ONNX Runtime lacks the provider that the options ask for.
void require_provider(const EngineOptions& options);

// Whether graphs of that precision run with the fused kernels, which are the CPU's and not all there in fp16.
bool takes_kernels(const std::string& precision, const EngineOptions& options);

// Throws EngineError where ONNX Runtime rejects the file, BackendUnavailableError where the provider does not start.
std::unique_ptr<Ort::Session> open_session(const Ort::Env& environment, const std::filesystem::path& path,
                                           const std::string& precision, const EngineOptions& options);

}  // namespace salience
