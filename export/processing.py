"""The graphs before and after the network, so that Python and C++ need no image library between them."""

import onnx
import onnx.parser
from onnx import ModelProto

from salience.training.preprocessing import Preprocessing

from .opset import IR_VERSION, OPSET

_PREPROCESS = """
<ir_version: {ir}, opset_import: ["": {opset}]>
preprocess (uint8[height, width, 3] image) => (float[1, 3, {h}, {w}] input)
<
  int64[1] batch_axis = {{0}},
  int64[4] size = {{1, 3, {h}, {w}}},
  float[1, 3, 1, 1] scale = {{{scale}}},
  float[1, 3, 1, 1] offset = {{{offset}}}
>
{{
  channels_first = Transpose <perm = [2, 0, 1]> (image)
  batched = Unsqueeze (channels_first, batch_axis)
  resized = Resize <mode = "linear", antialias = 1, exclude_outside = 1> (batched, , , size)
  pixels = Cast <to = 1> (resized)
  scaled = Mul (pixels, scale)
{last}
}}
"""
_LAST = {
    "rgb": "  input = Sub (scaled, offset)",
    "bgr": """  normalised = Sub (scaled, offset)
  channels = Constant <value_ints = [2, 1, 0]> ()
  input = Gather <axis = 1> (normalised, channels)""",
}

_PRIOR = """
<ir_version: {ir}, opset_import: ["": {opset}]>
prior (float[height, width] map) => (float[1, 1, {h}, {w}] prior)
<
  int64[2] outer_axes = {{0, 1}},
  int64[4] size = {{1, 1, {h}, {w}}},
  float zero = {{0.0}},
  float one = {{1.0}}
>
{{
  batched = Unsqueeze (map, outer_axes)
  resized = Resize <mode = "linear", antialias = 1, exclude_outside = 1> (batched, , , size)
  prior = Clip (resized, zero, one)
}}
"""

_POSTPROCESS = """
<ir_version: {ir}, opset_import: ["": {opset}]>
postprocess (float[1, 1, {h}, {w}] saliency, int64[2] size) => (float[height, width] map)
<
  int64[2] outer_axes = {{0, 1}},
  int64[2] ones = {{1, 1}},
  float zero = {{0.0}},
  float one = {{1.0}}
>
{{
  full_size = Concat <axis = 0> (ones, size)
  resized = Resize <mode = "linear", antialias = 1, exclude_outside = 1> (saliency, , , full_size)
  plane = Squeeze (resized, outer_axes)
  map = Clip (plane, zero, one)
}}
"""


def preprocess_graph(preprocessing: Preprocessing) -> ModelProto:
    """Return the graph from `image` (height, width, 3) uint8 RGB to `input` (1, 3, h, w) float32."""
    height, width = preprocessing.size
    scale = [1 / (255 * deviation) for deviation in preprocessing.std]
    offset = [mean / deviation for mean, deviation in zip(preprocessing.mean, preprocessing.std, strict=True)]
    values = {"h": height, "w": width, "scale": _numbers(scale), "offset": _numbers(offset)}
    return _parse(_PREPROCESS.format(ir=IR_VERSION, opset=OPSET, last=_LAST[preprocessing.order], **values))


def postprocess_graph(size: tuple[int, int]) -> ModelProto:
    """`saliency` (1, 1, h, w) float32 and `size` (2,) int64 -> `map` (height, width) float32 in [0, 1]."""
    return _parse(_POSTPROCESS.format(ir=IR_VERSION, opset=OPSET, h=size[0], w=size[1]))


def prior_graph(size: tuple[int, int]) -> ModelProto:
    """`map` (height, width) float32 in [0, 1] of any size -> `prior` (1, 1, h, w) float32 in [0, 1]."""
    return _parse(_PRIOR.format(ir=IR_VERSION, opset=OPSET, h=size[0], w=size[1]))


def _numbers(values: list[float]) -> str:
    return ", ".join(repr(value) for value in values)


def _parse(text: str) -> ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model
