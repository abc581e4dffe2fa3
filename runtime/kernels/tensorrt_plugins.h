// The operators of the domain `salience` as TensorRT plugins (IPluginV3) of version "1" and namespace "salience".
//
// A builder or runtime loads them with `getPluginRegistry().loadLibrary(path)`. The ONNX parser takes a plugin in place
// of a node's function body where the node has the attribute `plugin_namespace = "salience"`. TensorRT-RTX has no
// plugins: it reads the body.
#pragma once

#include <NvInfer.h>

#include <cstdint>

extern "C" {
// Adds the plugins to the registry of the process; false where there is no TensorRT in it, or where it refuses one.
[[gnu::visibility("default")]] bool salience_register_tensorrt_plugins();

// What TensorRT asks a library for that it loads.
[[gnu::visibility("default")]] nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count);
[[gnu::visibility("default")]] void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
}
