"""ONNX Runtime as it is on a GPU, with the CPU in its place: what it was told, and CUDA graphs that mind addresses."""

import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest

PROVIDERS = ["NvTensorRTRTXExecutionProvider", "TensorrtExecutionProvider", "CUDAExecutionProvider"]


class FakeGpu:
    """Installs itself; `fails` is the text of the next run's error, `refuses` that of the next opening."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[dict[str, str]] = []
        # The number of the graph of each run; None for a run without options.
        self.runs: list[int | None] = []
        self.fails = self.refuses = ""
        self.most_at_once = 0
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*PROVIDERS, "CPUExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", self._session_class(onnxruntime.InferenceSession))
        self._put_on_the_cpu(monkeypatch)

    def _put_on_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        allocate = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        addresses: dict[Any, dict[str, int]] = {}
        self.addresses = addresses

        def allocated(shape: list[int], dtype: Any, kind: str, number: int) -> Any:
            return allocate(shape, dtype, "cpu", 0)

        def noted(method: str) -> Any:
            genuine = getattr(onnxruntime.IOBinding, method)

            def bind(binding: Any, name: str, value: Any) -> None:
                genuine(binding, name, value)
                addresses.setdefault(binding, {})[name] = value.data_ptr()

            return bind

        monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", staticmethod(allocated))
        for method in ("bind_ortvalue_input", "bind_ortvalue_output"):
            monkeypatch.setattr(onnxruntime.IOBinding, method, noted(method))

    def _session_class(self, genuine: Any) -> Any:
        gpu = self

        class Session:
            def __init__(self, path: str, settings: Any, providers: list[Any], enable_fallback: int) -> None:
                assert not enable_fallback
                self._provider = providers[0] if isinstance(providers[0], str) else providers[0][0]
                if not isinstance(providers[0], str):
                    if gpu.refuses:
                        raise RuntimeError(gpu.refuses)
                    gpu.told.append(providers[0][1])
                self._session = genuine(path, settings, providers=["CPUExecutionProvider"])
                self._captured: dict[int, dict[str, int]] = {}
                self._busy = threading.Semaphore(1)

            def get_providers(self) -> list[str]:
                return [self._provider]

            def io_binding(self) -> Any:
                return self._session.io_binding()

            def run(self, *arguments: Any) -> Any:
                return self._session.run(*arguments)

            def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
                alone = self._busy.acquire(blocking=False)
                try:
                    gpu.most_at_once = max(gpu.most_at_once, 1 if alone else 2)
                    self._run(binding, options)
                finally:
                    if alone:
                        self._busy.release()

            def _run(self, binding: Any, options: Any) -> None:
                if gpu.fails:
                    raise RuntimeError(gpu.fails)
                number = None if options is None else int(options.get_run_config_entry("gpu_graph_id"))
                if self._provider != "CPUExecutionProvider":
                    gpu.runs.append(number)
                if number is not None and number != -1:
                    bound = gpu.addresses[binding]
                    # What a captured graph does where other buffers are bound: it works on the old ones.
                    assert self._captured.setdefault(number, dict(bound)) == bound
                self._session.run_with_iobinding(binding)

        return Session


class CudaTensor:
    """A tensor that says it is on a GPU, and on which one."""

    def __init__(self, array: np.ndarray[Any, Any], number: int = 0, **changes: Any) -> None:
        self._array, self._number = array, number
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False), "version": 3,
            **changes,
        }  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._number
