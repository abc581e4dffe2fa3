"""OpenVINO on the CPU."""

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..manifest import GraphEntry
from .engine import Engine, EngineOptions, Feeds


class OpenVinoEngine(Engine):
    """A compiled OpenVINO model; each thread has an infer request of its own.

    OpenVINO reads no model-local functions, so their bodies are put in place of the calls first
    (`onnx.inliner`), which needs the package `onnx`.
    """

    name = "openvino"

    def __init__(self, compiled: Any, interface: GraphEntry, label: str) -> None:
        super().__init__(interface, label)
        self._compiled = compiled
        self._local = threading.local()

    @classmethod
    def unavailable(cls, options: EngineOptions) -> str | None:
        """See `Engine.unavailable`."""
        if options.on_gpu:
            return f"openvino: device {options.device} is not served by this backend; ask for device cpu"
        missing = [package for package in ("openvino", "onnx") if find_spec(package) is None]
        if missing:
            return f"openvino: {' and '.join(missing)} not installed; run: pip install 'salience[openvino]'"
        return None

    @classmethod
    def open_graph(cls, path: Path, interface: GraphEntry, options: EngineOptions) -> Self:
        """See `Engine.open_graph`."""
        cls.require(options)
        import onnx.inliner
        import openvino

        # On CPUs with bf16 units OpenVINO would compute in bf16 unless told which type is meant.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if options.threads is not None:
            config["INFERENCE_NUM_THREADS"] = options.threads
        try:
            flat = onnx.inliner.inline_local_functions(onnx.load(path))
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(flat.SerializeToString()), "CPU", config)
        except Exception as error:
            raise EngineError(f"openvino: cannot load {path.name} ({str(error).strip().splitlines()[-1]}).") from error
        return cls(compiled, interface, f"openvino CPU {path.name}")

    def _run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        try:
            found = request.infer(dict(feeds), share_inputs=True)
        except RuntimeError as error:
            raise EngineError(f"{self.label}: failed while running ({str(error).strip().splitlines()[-1]}).") from error
        return {name: np.array(found[name]) for name in self.outputs}
