"""The TensorRT backends against stand-ins for the two libraries, strict where CUDA is: no GPU is at hand."""

import hashlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.backends.trt import TensorRtEngine, TensorRtRtxEngine
from salience.runtime.bundle import Bundle
from salience.runtime.errors import BackendUnavailableError, BundleError, EngineError
from salience.runtime.manifest import EngineEntry, FileEntry, GraphEntry, Manifest, TensorSpec
from salience.runtime.tables import entry

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
        cuda.check_current()
        self.handle, self.queue, self._cuda = 70 + len(cuda.streams), list[Callable[[], None]](), cuda

    def synchronize(self) -> None:
        self._cuda.check_current()
        self._cuda.events.append("synchronize")
        while self.queue:
            self.queue.pop(0)()


class FakeAllocation:
    def __init__(self, cuda: "FakeCuda", size_bytes: int) -> None:
        cuda.check_current()
        self._cuda, self.address, self.size_bytes = cuda, cuda.next_address, size_bytes
        cuda.next_address += 1 << 20
        cuda.memory[self.address] = bytearray(size_bytes)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self._cuda.check_current()
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
        self.streams: dict[int, FakeStream] = {}
        self.next_address = 1 << 20
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
        if "mem_alloc" in self.fails:
            raise CudaError("cuMemAlloc failed: out of memory")
        self.events.append(f"alloc {size_bytes}")
        return FakeAllocation(self, size_bytes)

    def Stream(self) -> FakeStream:  # noqa: N802
        stream = FakeStream(self)
        self.streams[stream.handle] = stream
        return stream

    def memcpy_htod_async(self, target: FakeAllocation, source: NDArray[Any], stream: FakeStream) -> None:
        self.check_current()
        assert source.flags.c_contiguous
        assert source.nbytes <= target.size_bytes
        self.events.append("to device")
        stream.queue.append(lambda: self.memory[target.address].__setitem__(slice(source.nbytes), source.tobytes()))

    def memcpy_dtoh_async(self, target: NDArray[Any], source: FakeAllocation, stream: FakeStream) -> None:
        self.check_current()
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

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._cuda.events.append(f"shape {name}")
        self.shapes[name] = shape
        return "set_input_shape" not in self._fails

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shapes.keys() == {"image", "weight"}, "an output's shape was asked for too early"
        if "get_tensor_shape" in self._fails:
            return (-1,)
        return self.shapes["image"] if name == "map" else self.shapes["weight"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in self._cuda.memory
        self.addresses[name] = address
        return True

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


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Libraries:
    return Libraries(monkeypatch)


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    file = tmp_path / "net.fp32.tensorrt-rtx.engine"
    file.write_bytes(PLAN)
    return file


@pytest.fixture
def engine(libraries: Libraries, plan_file: Path) -> TensorRtRtxEngine:
    return TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)


def feeds(batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.random((batch, 2, 2), np.float32),
        "weight": rng.random(batch, np.float32).astype(np.float16),
    }


def check(found: dict[str, NDArray[Any]], given: dict[str, NDArray[Any]]) -> None:
    expected = given["image"] * given["weight"][:, None, None].astype(np.float32)
    np.testing.assert_array_equal(found["map"], expected)
    np.testing.assert_array_equal(found["mean"], expected.mean((1, 2)).astype(np.float16))


def write_bundle(folder: Path, *, version: str = "1.7.1", targets: tuple[str, ...] = ("8.6", "8.9")) -> Bundle:
    """A bundle with an fp32 engine of each builder and none for fp16."""
    contents = {"net.onnx": b"onnx", "net.fp16.onnx": b"onnx"}
    engines = []
    for builder in ("tensorrt", "tensorrt-rtx"):
        file = f"net.fp32.{builder}.engine"
        contents[file] = PLAN
        engines.append(
            EngineEntry(
                graph="net",
                precision="fp32",
                builder=builder,
                builder_version=version,
                targets=targets,
                profile=(1, 2, 4),
                file=file,
                build_s=1.0,
                bytes=len(PLAN),
            )
        )
    files = {}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        files[name] = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    manifest = Manifest(
        method="lps",
        created="2026-01-01",
        input_size=(2, 2),
        default_precision="fp32",
        graphs={"net": INTERFACE},
        engines=tuple(engines),
        files=files,
        provenance={},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return Bundle(folder)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_opens_the_engine_of_a_bundle_and_runs_it(libraries: Libraries, tmp_path: Path, name: str) -> None:
    backend = entry(BACKENDS, name, what="backend")
    opened = backend.open(write_bundle(tmp_path), "net", "fp32", CUDA)
    assert opened.label == f"{name} net.fp32.{name}.engine"
    given = feeds(3)
    check(opened.run(given), given)
    assert not libraries.cuda.stack


def test_runs_in_the_order_that_cuda_needs(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    engine.run(feeds(2))
    assert libraries.cuda.events == [
        "shape image",
        "shape weight",
        "alloc 32",
        "alloc 4",
        "alloc 32",
        "alloc 4",
        "to device",
        "to device",
        "execute",
        "to host",
        "to host",
        "synchronize",
    ]


def test_buffers_grow_and_are_used_again(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    for batch, blocks in ((2, 4), (1, 4), (4, 4), (3, 4)):
        given = feeds(batch, seed=batch)
        check(engine.run(given), given)
        assert len(libraries.cuda.memory) == blocks
    # Batch 2 allocates four buffers, batch 4 outgrows all of them, batches 1 and 3 fit.
    assert sum(event.startswith("alloc") for event in libraries.cuda.events) == 8


def test_takes_arrays_that_are_not_contiguous(engine: TensorRtRtxEngine) -> None:
    given = feeds(4)
    reversed_feeds = {name: array[::-1] for name, array in given.items()}
    check(engine.run(reversed_feeds), reversed_feeds)


def test_many_threads_share_an_engine(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(20):
                given = feeds(1 + (seed + turn) % 4, seed=100 * seed + turn)
                check(engine.run(given), given)
            assert not libraries.cuda.stack
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_primary_context_is_retained_once(libraries: Libraries, plan_file: Path) -> None:
    first = TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)
    second = TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)
    first.close()
    given = feeds(1)
    check(second.run(given), given)
    assert libraries.cuda.retained == 1


def test_closing_frees_the_memory_and_ends_the_engine(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    engine.run(feeds(1))
    assert libraries.cuda.memory
    engine.close()
    engine.close()
    assert not libraries.cuda.memory
    assert not libraries.cuda.stack
    with pytest.raises(EngineError, match=r"got a call after close\(\)"):
        engine.run(feeds(1))


def test_a_forgotten_engine_frees_its_memory(libraries: Libraries, plan_file: Path) -> None:
    opened = TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)
    opened.run(feeds(1))
    del opened
    assert not libraries.cuda.memory


def test_a_batch_outside_the_profile_is_refused(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    with pytest.raises(EngineError, match=r"image got \(5, 2, 2\), expected from \(1, 2, 2\) to \(4, 2, 2\)"):
        engine.run(feeds(5))
    with pytest.raises(EngineError, match=r"image got \(0, 2, 2\)"):
        engine.run(feeds(0))
    assert not libraries.cuda.events


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("set_input_shape", r"image \(2, 2, 2\) was refused"),
        ("get_tensor_shape", "the size of map depends on the data"),
        ("execute_async_v3", "execution was refused"),
        ("mem_alloc", "failed while running .*out of memory"),
    ],
)
def test_a_failure_while_running_is_told_and_overcome(
    libraries: Libraries, engine: TensorRtRtxEngine, failure: str, message: str
) -> None:
    engine.run(feeds(1))
    libraries.fails.add(failure)
    libraries.cuda.fails.add(failure)
    with pytest.raises(EngineError, match=message):
        engine.run(feeds(2))
    assert not libraries.cuda.stack
    libraries.fails.clear()
    libraries.cuda.fails.clear()
    for batch in (1, 4):
        given = feeds(batch)
        check(engine.run(given), given)


def test_a_failed_execution_waits_for_copies_under_way(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    libraries.fails.add("execute_async_v3")
    with pytest.raises(EngineError, match="execution was refused"):
        engine.run(feeds(2))
    assert libraries.cuda.events[-2:] == ["execute", "synchronize"]


def test_a_file_that_the_library_refuses_is_told_with_its_reason(libraries: Libraries, plan_file: Path) -> None:
    plan_file.write_bytes(b"another")
    with pytest.raises(EngineError, match=r"\.engine: the file was refused.*Serialization assertion failed"):
        TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)
    assert not libraries.cuda.stack


def test_no_memory_for_an_execution_context_is_told(libraries: Libraries, plan_file: Path) -> None:
    libraries.fails.add("create_execution_context")
    with pytest.raises(EngineError, match="no execution context"):
        TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)


def test_an_engine_of_other_types_is_refused(libraries: Libraries, plan_file: Path) -> None:
    libraries.fails.add("dtype")
    with pytest.raises(EngineError, match=r"weight \(input float32\), expected .*weight \(input float16\)"):
        TensorRtRtxEngine.open_graph(plan_file, INTERFACE, CUDA)


def test_a_missing_engine_names_the_command(libraries: Libraries, tmp_path: Path) -> None:
    command = "python export/build_engine.py lps --engine tensorrt-rtx"
    with pytest.raises(BackendUnavailableError, match=f"lps net fp16: .*no such engine; build it with: {command}"):
        TensorRtRtxEngine.open(write_bundle(tmp_path), "net", "fp16", CUDA)


def test_a_missing_graph_is_the_bundles_error(libraries: Libraries, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no graph 'other'"):
        TensorRtRtxEngine.open(write_bundle(tmp_path), "other", "fp32", CUDA)


def test_another_builder_version_is_refused(libraries: Libraries, tmp_path: Path) -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"built by tensorrt 10\.3 and 1\.7\.1 is installed.*--engine tensorrt$"
    ):
        TensorRtEngine.open(write_bundle(tmp_path, version="10.3"), "net", "fp32", CUDA)


def test_an_engine_for_other_gpus_is_refused(libraries: Libraries, tmp_path: Path) -> None:
    libraries.cuda.gpus = [(8, 6), (9, 0)]
    bundle = write_bundle(tmp_path)
    assert TensorRtRtxEngine.open(bundle, "net", "fp32", EngineOptions(device="cuda:0"))
    with pytest.raises(BackendUnavailableError, match=r"8\.6, 8\.9, and cuda:1 \(Fake GPU\) has 9\.0"):
        TensorRtRtxEngine.open(bundle, "net", "fp32", EngineOptions(device="cuda:1"))


@pytest.mark.parametrize("backend", [TensorRtEngine, TensorRtRtxEngine])
def test_is_available_with_all_there(libraries: Libraries, backend: Any) -> None:
    assert backend.unavailable(CUDA) is None


def refusal(backend: Any, options: EngineOptions, tmp_path: Path) -> str:
    """The reason, which `open` must raise too."""
    reason: str | None = backend.unavailable(options)
    assert reason is not None
    with pytest.raises(BackendUnavailableError) as caught:
        backend.open(write_bundle(tmp_path), "net", "fp32", options)
    assert str(caught.value) == reason
    return reason


def test_the_cpu_is_not_served(libraries: Libraries, tmp_path: Path) -> None:
    assert "ask for device cuda" in refusal(TensorRtRtxEngine, EngineOptions(device="cpu"), tmp_path)


@pytest.mark.parametrize(
    ("backend", "module", "extra"),
    [
        (TensorRtEngine, "tensorrt", "tensorrt"),
        (TensorRtRtxEngine, "tensorrt_rtx", "tensorrt-rtx-run"),
        (TensorRtEngine, "pycuda", "tensorrt"),
        (TensorRtRtxEngine, "pycuda", "tensorrt-rtx-run"),
    ],
)
def test_a_missing_package_names_the_extra(
    libraries: Libraries,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    backend: Any,
    module: str,
    extra: str,
) -> None:
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setitem(sys.modules, module, None)
    reason = refusal(backend, CUDA, tmp_path)
    assert f"the package {module} is not installed; run: pip install 'salience[{extra}]'" in reason


def test_a_missing_driver_is_not_taken_for_a_missing_package(
    libraries: Libraries, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "libraries" / "pycuda"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "driver.py").write_text('raise ImportError("libcuda.so.1: cannot open shared object file")')
    monkeypatch.delitem(sys.modules, "pycuda")
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.syspath_prepend(package.parent)
    reason = refusal(TensorRtRtxEngine, CUDA, tmp_path)
    assert "no CUDA driver (libcuda.so.1" in reason
    assert "install the NVIDIA driver" in reason
    sys.modules.pop("pycuda", None)


def test_a_machine_without_gpu_is_told(libraries: Libraries, tmp_path: Path) -> None:
    libraries.cuda.fails.add("init")
    assert "no CUDA device (cuInit failed" in refusal(TensorRtRtxEngine, CUDA, tmp_path)


def test_a_gpu_that_is_not_there_is_told(libraries: Libraries, tmp_path: Path) -> None:
    reason = refusal(TensorRtRtxEngine, EngineOptions(device="cuda:2"), tmp_path)
    assert "device cuda:2 was asked for, and CUDA shows 1 device(s)" in reason
