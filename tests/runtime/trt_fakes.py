"""Stand-ins for `tensorrt` and `pycuda`, strict where CUDA is, and what the tests of the backend share."""

import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime.backends.engine import EngineOptions
from salience.runtime.manifest import GraphEntry, TensorSpec

CUDA = EngineOptions(device="cuda")
PLAN = b"a plan"
INTERFACE = GraphEntry(
    inputs=(
        TensorSpec(name="image", dtype="float32", shape=("batch", 2, 2)),
        TensorSpec(name="weight", dtype="float16", shape=("batch",)),
    ),
    outputs=(
        TensorSpec(name="map", dtype="float32", shape=("batch", 2, 2)),
        TensorSpec(name="mean", dtype="float16", shape=("batch",)),
    ),
    files={"fp32": "net.onnx", "fp16": "net.fp16.onnx"},
)


class CudaError(Exception):
    """pycuda.driver.Error."""


class FakeStream:
    """Work waits until `synchronize`, so that results are wrong for whoever forgets it."""

    def __init__(self, cuda: "FakeCuda") -> None:
        self.handle, self.queue, self._cuda = next(cuda.numbers), list[Callable[[], None]](), cuda
        cuda.call("Stream")
        cuda.streams[self.handle] = self

    def __del__(self) -> None:
        self._cuda.strays += not self._cuda.stack

    def synchronize(self) -> None:
        self._cuda.events.append("synchronize")
        self._cuda.call("synchronize")
        while self.queue:
            self.queue.pop(0)()


class FakeAllocation:
    def __init__(self, cuda: "FakeCuda", size_bytes: int) -> None:
        self._cuda, self.address, self.size_bytes = cuda, next(cuda.numbers) << 20, size_bytes
        cuda.memory[self.address] = bytearray(size_bytes)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self._cuda.check_current()
        self._cuda.events.append("free")
        del self._cuda.memory[self.address]


class FakePrimaryContext:
    def __init__(self, cuda: "FakeCuda") -> None:
        self._cuda = cuda

    def push(self) -> None:
        self._cuda.stack.append(self)

    def pop(self) -> None:
        self._cuda.check_current()
        self._cuda.stack.pop()


class FakeCuda(ModuleType):
    """`pycuda.driver`: memory by address, a stack of current contexts for each thread."""

    Error = CudaError

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.events: list[str] = []
        self.memory: dict[int, bytearray] = {}
        self.memory_bytes = 1 << 20
        self.streams = weakref.WeakValueDictionary[int, FakeStream]()
        self.contexts = weakref.WeakValueDictionary[int, FakeContext]()
        self.numbers = itertools.count(1)
        self.strays = 0  # streams and contexts that went while no primary context was current
        self.gpus = [(8, 6)]
        self.retained = 0
        self.fails: set[str] = set()
        self._local = threading.local()
        self.Device = self._device_class()

    @property
    def stack(self) -> list[Any]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        stack: list[Any] = self._local.stack
        return stack

    def check_current(self) -> None:
        assert self.stack, "CUDA was called while no context was current on this thread"

    def call(self, name: str) -> None:
        """What every call of the driver does first."""
        self.check_current()
        if name in self.fails:
            raise CudaError(f"{name} failed")

    def _device_class(self) -> Any:
        cuda = self

        class Device:
            def __init__(self, index: int) -> None:
                self._index = index

            @staticmethod
            def count() -> int:
                return len(cuda.gpus)

            def name(self) -> str:
                return "Fake GPU"

            def compute_capability(self) -> tuple[int, int]:
                return cuda.gpus[self._index]

            def retain_primary_context(self) -> FakePrimaryContext:
                cuda.retained += 1
                return FakePrimaryContext(cuda)

        return Device

    def init(self) -> None:
        if "init" in self.fails:
            raise CudaError("cuInit failed: no CUDA-capable device is detected")

    def mem_alloc(self, size_bytes: int) -> FakeAllocation:
        self.call("mem_alloc")
        if sum(map(len, self.memory.values())) + size_bytes > self.memory_bytes:
            raise CudaError("cuMemAlloc failed: out of memory")
        self.events.append(f"alloc {size_bytes}")
        return FakeAllocation(self, size_bytes)

    def Stream(self) -> FakeStream:  # noqa: N802
        return FakeStream(self)

    def memcpy_htod_async(self, target: FakeAllocation, source: NDArray[Any], stream: FakeStream) -> None:
        self.call("memcpy_htod_async")
        assert source.flags.c_contiguous
        assert source.nbytes <= target.size_bytes
        self.events.append("to device")
        stream.queue.append(lambda: self.memory[target.address].__setitem__(slice(source.nbytes), source.tobytes()))

    def memcpy_dtoh_async(self, target: NDArray[Any], source: FakeAllocation, stream: FakeStream) -> None:
        self.call("memcpy_dtoh_async")
        assert target.nbytes <= source.size_bytes
        self.events.append("to host")
        stream.queue.append(
            lambda: (
                target.reshape(-1)
                .view(np.uint8)
                .__setitem__(slice(None), np.frombuffer(self.memory[source.address][: target.nbytes], np.uint8))
            )
        )


class FakeContext:
    """map = image * weight, mean = the mean of map, at the addresses and shapes that were set."""

    def __init__(self, cuda: FakeCuda, fails: set[str]) -> None:
        self._cuda, self._fails = cuda, fails
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        cuda.contexts[next(cuda.numbers)] = self

    def __del__(self) -> None:
        self._cuda.strays += not self._cuda.stack

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._cuda.events.append(f"shape {name}")
        self.shapes[name] = shape
        return "set_input_shape" not in self._fails

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shapes.keys() == {"image", "weight"}, "an output's shape was asked for too early"
        if "get_tensor_shape" in self._fails:
            return (-1,)
        if "another shape" in self._fails:
            return (7,)
        return self.shapes["image"] if name == "map" else self.shapes["weight"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in self._cuda.memory
        self.addresses[name] = address
        return "set_tensor_address" not in self._fails

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._cuda.check_current()
        assert self.addresses.keys() == {"image", "weight", "map", "mean"}
        self._cuda.events.append("execute")
        time.sleep(0.0002)  # lets another thread in, where nothing keeps it out
        if "execute_async_v3" in self._fails:
            return False
        self._cuda.streams[stream_handle].queue.append(self._compute)
        return True

    def _compute(self) -> None:
        image = self._array("image", np.float32, self.shapes["image"])
        weight = self._array("weight", np.float16, self.shapes["weight"])
        found = image * weight[:, None, None].astype(np.float32)
        self._array("map", np.float32, found.shape)[...] = found
        self._array("mean", np.float16, weight.shape)[...] = found.mean((1, 2))

    def _array(self, name: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        memory = self._cuda.memory[self.addresses[name]]
        return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


def fake_tensorrt(cuda: FakeCuda, fails: set[str]) -> Any:
    """`tensorrt`: loads PLAN as an engine of INTERFACE for batch 1 to 4."""
    types = {"image": "FLOAT", "weight": "HALF", "map": "FLOAT", "mean": "HALF"}
    shapes = {"image": (-1, 2, 2), "weight": (-1,), "map": (-1, 2, 2), "mean": (-1,)}
    names = list(types)

    class ILogger:
        ERROR, WARNING, INFO = 1, 2, 3

    class CudaEngine:
        num_io_tensors = len(names)

        def get_tensor_name(self, index: int) -> str:
            return names[index]

        def get_tensor_mode(self, name: str) -> str:
            return "in" if name in ("image", "weight") else "out"

        def get_tensor_location(self, name: str) -> str:
            return "device"

        def get_tensor_dtype(self, name: str) -> Any:
            return SimpleNamespace(name="FLOAT" if "dtype" in fails else types[name])

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return shapes[name]

        def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
            assert profile == 0
            return [(batch, *shapes[name][1:]) for batch in (1, 2, 4)]

        def create_execution_context(self) -> Any:
            cuda.check_current()
            return None if "create_execution_context" in fails else FakeContext(cuda, fails)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            cuda.check_current()
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None:
            cuda.check_current()
            self._logger.log(ILogger.INFO, "loading")
            if plan == PLAN:
                return CudaEngine()
            self._logger.log(ILogger.ERROR, "Serialization assertion failed.")
            return None

    return SimpleNamespace(
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        TensorLocation=SimpleNamespace(DEVICE="device", HOST="host"),
        __version__="1.7.1",
    )


class Libraries:
    """The stand-ins, installed; what `fails` names goes wrong from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cuda, self.fails = FakeCuda(), set[str]()
        module = fake_tensorrt(self.cuda, self.fails)
        for name in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
        monkeypatch.setitem(sys.modules, "pycuda.driver", self.cuda)


def feeds(batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.random((batch, 2, 2), np.float32),
        "weight": rng.random(batch, np.float32).astype(np.float16),
    }


def assert_computed(found: dict[str, NDArray[Any]], given: dict[str, NDArray[Any]]) -> None:
    expected = given["image"] * given["weight"][:, None, None].astype(np.float32)
    np.testing.assert_array_equal(found["map"], expected)
    np.testing.assert_array_equal(found["mean"], expected.mean((1, 2)).astype(np.float16))
