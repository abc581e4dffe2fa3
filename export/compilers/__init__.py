"""Compilers that turn an ONNX file into an engine file, one library a file.

A compiler is `compile(onnx_file, *, profile, targets=()) -> CompiledEngine`.
"""

COMPILERS = {
    "tensorrt": "salience.export.compilers.trt:compile_tensorrt",
    "tensorrt-rtx": "salience.export.compilers.trt:compile_tensorrt_rtx",
}
