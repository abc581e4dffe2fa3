"""The TensorRT backends against stand-ins for the two libraries, strict where CUDA is: no GPU is at hand."""

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.backends.trt import TensorRtEngine, TensorRtRtxEngine
from salience.runtime.bundle import Bundle
from salience.runtime.errors import BackendUnavailableError, BundleError, EngineError
from salience.runtime.manifest import EngineEntry, FileEntry, Manifest
from salience.runtime.tables import entry

from .trt_fakes import CUDA, INTERFACE, PLAN, Libraries, assert_computed, feeds


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
    assert opened.on_gpu
    given = feeds(3)
    assert_computed(opened.run(given), given)
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
        assert_computed(engine.run(given), given)
        assert len(libraries.cuda.memory) == blocks
    # Batch 2 allocates four buffers, batch 4 outgrows all of them, batches 1 and 3 fit.
    assert sum(event.startswith("alloc") for event in libraries.cuda.events) == 8


def test_takes_arrays_that_are_not_contiguous(engine: TensorRtRtxEngine) -> None:
    given = feeds(4)
    reversed_feeds = {name: array[::-1] for name, array in given.items()}
    assert_computed(engine.run(reversed_feeds), reversed_feeds)


def test_many_threads_share_an_engine(libraries: Libraries, engine: TensorRtRtxEngine) -> None:
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(20):
                given = feeds(1 + (seed + turn) % 4, seed=100 * seed + turn)
                assert_computed(engine.run(given), given)
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
    assert_computed(second.run(given), given)
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
        ("mem_alloc", "failed while running .*mem_alloc failed"),
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
        assert_computed(engine.run(given), given)


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
