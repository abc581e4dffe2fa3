"""The public model of a Triton repository: pictures in, maps out, by the same detectors as everywhere.

The server's Python backend runs it. Networks run as models of their own, which it calls, see `backends.bls`; decoding,
resizing, loops and encoding run in its process. Pictures of one request follow each other; requests to several
instances run side by side, and the server makes batches of what these call.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from .backends.bls import BlsEngine, import_utilities
from .backends.engine import Engine, EngineOptions
from .bundle import Bundle
from .detector import Detector
from .errors import EngineError, SalienceError
from .images import ImageSource
from .methods import METHODS
from .methods.cgd import ObjectMap
from .png_writer import encode_png
from .saliency import SaliencyMap
from .service.adapters import adapt
from .service.queries import Query, QueryError, check_counts, parse_options
from .service.settings import Limits
from .tables import entry
from .triton_interface import (
    BUNDLE_FOLDER,
    CLASS,
    DEVICE_PARAMETER,
    IMAGE,
    IMAGE_PIXELS,
    PRECISION_PARAMETER,
    PRIOR,
    PRIOR_PIXELS,
    PROBABILITY,
    SALIENCY,
    SALIENCY_PIXELS,
    Device,
    Port,
    graph_model,
)

log = logging.getLogger("salience")

ChoiceT = TypeVar("ChoiceT", bound=str)


class TritonPythonModel:
    """What the Python backend looks for in a `model.py`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside `model.py`.

        Args:
            args: the server's: "model_repository" is the model's folder in the repository, "model_config" JSON.

        Raises:
            TritonModelException: the bundle cannot be served; the message says why.
        """
        self._utilities = import_utilities()
        self._limits = Limits()
        try:
            self._detector = open_detector(args)
        except SalienceError as error:
            raise self._utilities.TritonModelException(str(error)) from None
        self._adapter = adapt(self._detector, self._limits.pixels)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for every request; one that fails leaves the others alone."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        utilities = self._utilities
        try:
            query = self._query(request)
            return utilities.InferenceResponse(output_tensors=self._tensors(query))
        except Exception as error:
            return utilities.InferenceResponse(output_tensors=[], error=self._refusal(error))

    def _query(self, request: Any) -> Query:
        method = self._detector.bundle.manifest.method
        options = parse_options(json.loads(request.parameters() or "{}"), method)
        images = self._pictures(request, IMAGE, IMAGE_PIXELS)
        priors = self._pictures(request, PRIOR, PRIOR_PIXELS)
        query = Query(images, priors, options)
        check_counts(query, method, self._limits.images)
        return query

    def _pictures(self, request: Any, encoded: Port, pixels: Port) -> tuple[ImageSource, ...]:
        """Of one of two inputs, or none of neither."""
        found, array = self._values(request, encoded), self._values(request, pixels)
        if found is None:
            return () if array is None else (array,)
        if array is not None:
            raise QueryError(f"{encoded.name}: is given, and {pixels.name} too; leave one of them out.")
        return tuple(bytes(element) for element in found.flat)

    def _values(self, request: Any, port: Port) -> Any:
        tensor = self._utilities.get_input_tensor_by_name(request, port.name)
        return None if tensor is None else tensor.as_numpy()

    def _tensors(self, query: Query) -> list[Any]:
        values: dict[Port, list[Any]] = {}
        for found in self._maps(query):
            for port, value in _outputs(found, query).items():
                values.setdefault(port, []).append(value)
        return [self._utilities.Tensor(port.name, _array(port, found)) for port, found in values.items()]

    def _maps(self, query: Query) -> Iterator[SaliencyMap]:
        """Of one unit after the other, so that few large arrays are held at a time."""
        for unit in self._adapter.units(query):
            prepared = self._adapter.prepare(unit)
            (inferred,) = self._adapter.infer([prepared], [unit.options])
            yield from self._adapter.finish(prepared, inferred, unit.options)

    def _refusal(self, error: Exception) -> Any:
        """What the client is told: the sentence, and whose the mistake is."""
        kind = self._utilities.TritonError
        if not isinstance(error, SalienceError):
            log.error("request failed", exc_info=error)
            return kind(f"{self._detector}: failed ({type(error).__name__}: {error}).", kind.INTERNAL)
        return kind(str(error), kind.INTERNAL if isinstance(error, EngineError) else kind.INVALID_ARG)


def open_detector(args: Mapping[str, str]) -> Detector:
    """The detector of the bundle beside `model.py`, whose graphs are models of the server.

    Args:
        args: as `TritonPythonModel.initialize` gets them.

    Raises:
        SalienceError: the bundle or the configuration is not what `export/triton_repository.py` wrote, or cannot run.
    """
    folder = Path(args["model_repository"])
    bundle = Bundle(folder / args["model_version"] / BUNDLE_FOLDER)
    config = json.loads(args["model_config"])
    precision = _choice(config, PRECISION_PARAMETER, bundle.precisions())
    device = _choice(config, DEVICE_PARAMETER, get_args(Device))
    options = EngineOptions(device="cuda" if device == "gpu" else "cpu")
    detector_type = entry(METHODS, bundle.manifest.method, what="method")
    engines: dict[str, Engine] = {}
    for graph in detector_type.graphs:
        bundle.graph_file(graph, precision)
        interface = bundle.manifest.graphs[graph].at(precision)
        engines[graph] = BlsEngine.open_graph(
            folder.parent / graph_model(args["model_name"], graph), interface, options
        )
    detector: Detector = detector_type(bundle, engines, precision, None)
    return detector


def _choice(config: Mapping[str, Any], name: str, allowed: Sequence[ChoiceT]) -> ChoiceT:
    """A parameter of the model's configuration."""
    text = config.get("parameters", {}).get(name, {}).get("string_value")
    for choice in allowed:
        if choice == text:
            return choice
    raise SalienceError(f"config.pbtxt: parameter {name} is {text!r}, expected one of {', '.join(allowed)}.")


def _outputs(found: SaliencyMap, query: Query) -> dict[Port, Any]:
    """What one picture adds to each output."""
    pixels = found.render(query.options.kind, threshold=query.options.threshold)
    encoded = isinstance(query.images[0], bytes)
    values: dict[Port, Any] = {SALIENCY: encode_png(pixels)} if encoded else {SALIENCY_PIXELS: np.atleast_3d(pixels)}
    if isinstance(found, ObjectMap):
        values |= {CLASS: found.label.encode(), PROBABILITY: found.probability}
    return values


def _array(port: Port, values: Sequence[Any]) -> NDArray[Any]:
    """The values of all pictures; pixels come of one alone."""
    if port is SALIENCY_PIXELS:
        return np.ascontiguousarray(values[0])
    return np.array(values, dtype=np.float32 if port is PROBABILITY else object)
