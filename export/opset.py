"""Versions of the ONNX format that every exported file uses: read by ONNX Runtime 1.22+, TensorRT 10.12+."""

OPSET = 20
# Of graphs in bfloat16: the first version whose convolutions and poolings take it.
BF16_OPSET = 22
IR_VERSION = 10
