"""The tensors of the Open Inference Protocol: a request becomes a query, answers become a response.

KServe's own reading turns binary tensors into lists of numbers, and into text where they are bytes; here they stay as
they came.
"""

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.protocol.infer_type import RequestedOutput, to_http_parameters
from numpy.typing import NDArray

from .queries import Answer, Query, QueryError, parse_options

# Of the protocol, not the model's.
_PROTOCOL_PARAMETERS = frozenset({"binary_data_output", "binary_data_size"})
# In JSON each number becomes an object, and writing them holds up every other request.
_JSON_NUMBERS = 2_000_000
_ARRAYS = {"UINT8": np.uint8, "FP32": np.float32}


def read_binary(body: bytes, json_length: str) -> InferRequest:
    """A request of the binary tensor extension: JSON, then the tensors' bytes.

    Raises:
        QueryError: it is not one.
    """
    length = int(json_length) if json_length.isdecimal() and len(json_length) < 16 else -1
    if not 0 < length <= len(body):
        raise QueryError(
            f"header Inference-Header-Content-Length: got {json_length[:20]!r}, "
            f"expected 1 to {len(body)}, the body's size."
        )
    try:
        told = orjson.loads(body[:length])
        inputs, end = [], length
        for tensor in told["inputs"]:
            start, end = end, end + int(tensor.get("parameters", {}).get("binary_data_size", 0))
            inputs.append(_input(tensor, body[start:end] if end > start else None))
        outputs = [RequestedOutput(str(o["name"]), o.get("parameters", {})) for o in told.get("outputs") or ()]
        parameters = dict(told.get("parameters") or {})
        request = InferRequest("", inputs, told.get("id"), parameters=parameters, request_outputs=outputs)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise QueryError(f"request: cannot be read ({type(error).__name__}: {error}).") from error
    if end != len(body):
        raise QueryError(f"request: {len(body)} bytes, expected {end} by its binary_data_size.")
    return request


def _input(tensor: Mapping[str, Any], data: bytes | None) -> InferInput:
    found = InferInput(str(tensor["name"]), list(tensor["shape"]), str(tensor["datatype"]), tensor.get("data"))
    found._raw_data = data
    return found


def query_of(request: InferRequest, method: str, limit: int) -> Query:
    """Return the query of a request, whose tensors are checked before any work is done for it.

    Args:
        request: see `input_types` for its tensors; parameters are those of `Options`.
        method: of the model.
        limit: of elements of a BYTES tensor, more are not read.

    Raises:
        QueryError: a tensor or parameter is missing, unknown, there more than once, or not what it should be.
    """
    _check_outputs(request, method)
    tensors = {tensor.name: tensor for tensor in request.inputs}
    known = ("image", "prior") if method == "lps" else ("image",)
    foreign = sorted(tensors.keys() - set(known))
    if foreign or "image" not in tensors or len(tensors) < len(request.inputs):
        named = _listed([tensor.name for tensor in request.inputs])
        raise QueryError(f"inputs: got {named}; expected {' and '.join(known)}, so send each of them once.")
    parameters = request.parameters or {}
    if request.from_grpc:
        parameters = to_http_parameters(parameters)
    options = {name: value for name, value in parameters.items() if name not in _PROTOCOL_PARAMETERS}
    images = _pictures(tensors["image"], 3, limit)
    priors = _pictures(tensors["prior"], 2, limit) if "prior" in tensors else ()
    return Query(images, priors, parse_options(options, method))


def _check_outputs(request: InferRequest, method: str) -> None:
    """Raise QueryError for an output that does not exist, or is asked for more than once and would be sent as often."""
    wanted = [output.name for output in request.request_outputs or ()]
    known = {output["name"] for output in output_types(method)}
    if len(set(wanted)) < len(wanted) or not known.issuperset(wanted):
        raise QueryError(
            f"outputs: got {_listed(wanted)}; expected some of {', '.join(sorted(known))}, each at most once."
        )


def _listed(names: Sequence[str], limit: int = 4) -> str:
    """The first names, shortened, and how many there are where these are not all."""
    shown = ", ".join(name[:50] for name in names[:limit]) or "none"
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"


def _pictures(tensor: InferInput, dimensions: int, limit: int) -> tuple[Any, ...]:
    """Encoded pictures of a BYTES tensor; arrays of one with `dimensions`, or one more for several."""
    if tensor.datatype == "BYTES":
        return tuple(_bytes_elements(tensor, limit))
    array = _array(tensor, dimensions)
    arrays = array[None] if array.ndim == dimensions else array
    if len(arrays) > limit:
        raise QueryError(f"{tensor.name}: holds {len(arrays)} pictures, expected 1 to {limit}.")
    return tuple(arrays)


def _bytes_elements(tensor: InferInput, limit: int) -> list[bytes]:
    """Elements as they are where they came in binary, of Base64 where they came in JSON."""
    count = int(np.prod([min(size, limit + 1) for size in tensor.shape], dtype=np.float64)) if tensor.shape else 0
    if not 1 <= count <= limit or min(tensor.shape) < 1:
        raise QueryError(f"{tensor.name}: has shape {tensor.shape[:8]}, expected 1 to {limit} elements of BYTES.")
    found = list(tensor.data or ()) if tensor._raw_data is None else _length_prefixed(tensor._raw_data, limit)
    if len(found) != count:
        raise QueryError(f"{tensor.name}: holds {len(found)} elements, expected {count} by its shape {tensor.shape}.")
    return [_decoded(element, tensor.name) for element in found]


def _length_prefixed(data: bytes, limit: int) -> list[bytes]:
    """Elements of the protocol's binary form: four bytes of length each, little endian, then the bytes."""
    found: list[bytes] = []
    offset = 0
    while offset < len(data) and len(found) <= limit:
        if offset + 4 > len(data):
            break
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4 + length
        found.append(data[offset - length : offset])
    if offset != len(data):
        raise QueryError(f"BYTES tensor: {len(data)} bytes, expected elements of 4 bytes of length and their bytes.")
    return found


def _decoded(element: object, name: str) -> bytes:
    if isinstance(element, bytes):
        return element
    try:
        return base64.b64decode(str(element), validate=True)
    except (binascii.Error, ValueError) as error:
        raise QueryError(f"{name}: text in JSON, expected Base64 of an encoded picture ({error}).") from error


def _array(tensor: InferInput, dimensions: int) -> NDArray[Any]:
    allowed = ("UINT8",) if dimensions == 3 else ("UINT8", "FP32")
    if tensor.datatype not in allowed:
        raise QueryError(f"{tensor.name}: has type {tensor.datatype[:20]}, expected BYTES or {' or '.join(allowed)}.")
    dtype = _ARRAYS[tensor.datatype]
    try:
        shape = tuple(int(size) for size in tensor.shape)
        flat = np.frombuffer(tensor._raw_data, dtype) if tensor._raw_data is not None else np.array(tensor.data, dtype)
        array = flat.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise QueryError(f"{tensor.name}: does not fit its shape {tensor.shape[:8]} ({error}).") from error
    if array.ndim not in (dimensions, dimensions + 1) or (dimensions == 3 and array.shape[-1] != 3) or not array.size:
        form = "H, W, 3" if dimensions == 3 else "H, W"
        raise QueryError(f"{tensor.name}: has shape {array.shape}, expected ({form}) or (N, {form}).")
    return array


def response_of(answers: Sequence[Answer], request: InferRequest, name: str) -> InferResponse:
    """Return the response: PNG bytes for encoded pictures, arrays for arrays.

    Raises:
        QueryError: arrays are asked for as JSON and hold too many numbers for it.
    """
    outputs = [_saliency(answers, request)]
    if answers[0].target is not None:
        outputs.append(_output("class", "BYTES", np.array([str(a.target).encode() for a in answers], dtype=object)))
        outputs.append(_output("probability", "FP32", np.array([a.probability for a in answers], dtype=np.float32)))
    if request.from_grpc:
        for output in outputs:
            output.set_data_from_numpy(output.data)
    return InferResponse(
        response_id=request.id or "",
        model_name=name,
        infer_outputs=outputs,
        from_grpc=request.from_grpc,
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs or None,
    )


def _saliency(answers: Sequence[Answer], request: InferRequest) -> InferOutput:
    image = next(tensor for tensor in request.inputs if tensor.name == "image")
    if image.datatype != "BYTES":
        pixels = np.stack([answer.pixels for answer in answers])
        if not request.from_grpc and pixels.size > _JSON_NUMBERS and not _binary_wanted(request, "saliency"):
            raise QueryError(
                f"outputs: {pixels.size} numbers are too many for JSON, {_JSON_NUMBERS} the limit; ask for binary_data."
            )
        return _output("saliency", "UINT8", pixels[0] if len(image.shape) == 3 else pixels)
    binary = request.from_grpc or _binary_wanted(request, "saliency")
    # JSON has no bytes.
    elements = [a.png if binary else base64.b64encode(a.png) for a in answers]
    return _output("saliency", "BYTES", np.array(elements, dtype=object))


def _binary_wanted(request: InferRequest, name: str) -> bool:
    asked = [output.binary_data for output in request.request_outputs or () if output.name == name]
    return bool(asked[0] if asked else request.use_binary_outputs)


def _output(name: str, datatype: str, values: NDArray[Any]) -> InferOutput:
    output = InferOutput(name, list(values.shape), datatype)
    output.data = values
    return output


def input_types(method: str) -> list[dict[str, Any]]:
    """The tensors of a request, for the model's metadata; arrays of UINT8 (N, H, W, 3) may stand for BYTES."""
    names = ("image", "prior") if method == "lps" else ("image",)
    return [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in names]


def output_types(method: str) -> list[dict[str, Any]]:
    """The tensors of a response, for the model's metadata."""
    found: list[dict[str, Any]] = [{"name": "saliency", "datatype": "BYTES", "shape": [-1]}]
    if method == "cgd":
        found += [
            {"name": "class", "datatype": "BYTES", "shape": [-1]},
            {"name": "probability", "datatype": "FP32", "shape": [-1]},
        ]
    return found
