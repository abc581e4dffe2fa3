"""Versions of the ONNX format that every exported file uses: read by ONNX Runtime 1.22+, TensorRT 10.12+."""

OPSET = 20
IR_VERSION = 10
