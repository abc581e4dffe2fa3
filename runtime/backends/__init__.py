"""Inference engines behind one interface, one file each; `engine.py` holds the interface."""

BACKENDS = {
    "onnxruntime": "salience.runtime.backends.onnxrt:OnnxRuntimeEngine",
    "openvino": "salience.runtime.backends.ov:OpenVinoEngine",
    "tensorrt": "salience.runtime.backends.trt:TensorRtEngine",
    "tensorrt-rtx": "salience.runtime.backends.trt:TensorRtRtxEngine",
}
