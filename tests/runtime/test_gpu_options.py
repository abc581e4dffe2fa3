"""What ONNX Runtime is told on a GPU, and the graphs of its sessions: with the CPU in a GPU's place."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from salience.runtime import BackendUnavailableError, EngineError, SalienceError, load
from salience.runtime.backends.cuda_graphs import MOST_OF_A_SESSION, MOST_OF_AN_ENGINE
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.backends.onnxrt_options import cache_folder, provider_options
from salience.runtime.cli import app
from salience.runtime.manifest import GraphEntry, TensorSpec

from .gpu_fakes import FakeGpu
from .small_graphs import looped, open_small, start

Open = Callable[..., Engine]

INTERFACE = GraphEntry(
    inputs=(
        TensorSpec(name="input", dtype="float32", shape=("batch", 3, 64, 96)),
        TensorSpec(name="prior", dtype="float32", shape=("batch", 1, 64, 96)),
        TensorSpec(name="step", dtype="float32", shape=(1,)),
    ),
    outputs=(TensorSpec(name="map", dtype="float32", shape=("batch", 1, 64, 96)),),
    files={"fp32": "net.onnx"},
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


@pytest.fixture
def open_on_gpu(gpu: FakeGpu, tmp_path: Path) -> Open:
    """Name of a small graph -> its engine on the stand-in for a GPU, with graphs unless told otherwise."""

    def opened(name: str, **options: Any) -> Engine:
        return open_small(
            name, "onnxruntime", tmp_path, EngineOptions(**{"device": "cuda", "cuda_graph": True, **options})
        )

    return opened


@pytest.fixture
def graph_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "net.onnx").write_bytes(b"a graph")
    return tmp_path / "net.onnx"


def told(graph_file: Path, **options: Any) -> dict[str, str]:
    return provider_options(EngineOptions(**{"device": "cuda", **options}), graph_file, INTERFACE)


def test_fp32_on_cuda_is_fp32_unless_the_user_says_otherwise(graph_file: Path) -> None:
    assert told(graph_file) == {"device_id": "0", "use_tf32": "0"}
    chosen = {"use_tf32": "1", "gpu_mem_limit": "1000"}
    assert told(graph_file, device="cuda:3", provider_options=chosen) == {"device_id": "3", **chosen}
    assert told(graph_file, provider="cuda", cuda_graph=True)["enable_cuda_graph"] == "1"


def test_tensorrt_keeps_its_engines_for_all_batches(graph_file: Path) -> None:
    found = told(graph_file, provider="tensorrt")
    folder = found["trt_engine_cache_path"]
    assert found == {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_timing_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_path": folder,
        "trt_profile_min_shapes": "input:1x3x64x96,prior:1x1x64x96",
        "trt_profile_opt_shapes": "input:8x3x64x96,prior:8x1x64x96",
        "trt_profile_max_shapes": "input:32x3x64x96,prior:32x1x64x96",
    }
    assert Path(folder).parent == graph_file.parent / "cache" / "salience" / "tensorrt"
    assert Path(folder).stat().st_mode & 0o777 == 0o700


def test_tensorrt_rtx_has_names_of_its_own(graph_file: Path) -> None:
    found = told(graph_file, provider="tensorrt-rtx", cuda_graph=True)
    assert Path(found["nv_runtime_cache_path"]).parent.name == "tensorrt-rtx"
    assert found["nv_profile_max_shapes"] == "input:32x3x64x96,prior:32x1x64x96"
    assert found["enable_cuda_graph"] == "1"
    assert not [name for name in found if name.startswith("trt_")]


def test_a_folder_of_the_users_for_engines_makes_none_of_ours(graph_file: Path) -> None:
    chosen = {"trt_engine_cache_path": "/a", "trt_timing_cache_path": "/b"}
    assert chosen.items() <= told(graph_file, provider="tensorrt", provider_options=chosen).items()
    chosen = {"nv_runtime_cache_path": "/c"}
    assert chosen.items() <= told(graph_file, provider="tensorrt-rtx", provider_options=chosen).items()
    assert not (graph_file.parent / "cache").exists()


def test_no_two_bundles_share_a_cache(graph_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = graph_file.parent / "other" / "net.onnx"
    other.parent.mkdir()
    other.write_bytes(graph_file.read_bytes())
    first, elsewhere = cache_folder("tensorrt", graph_file), cache_folder("tensorrt", other)
    assert cache_folder("tensorrt", graph_file) == first
    graph_file.write_bytes(b"the graph, built again")
    assert len({first, elsewhere, cache_folder("tensorrt", graph_file)}) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(graph_file.parent / "home"))
    assert cache_folder("tensorrt", other).is_relative_to(graph_file.parent / "home" / ".cache" / "salience")


def test_a_cache_that_cannot_be_made_is_told(graph_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(graph_file))
    with pytest.raises(EngineError, match=r"no folder .* for built engines \(Not a directory\); set XDG_CACHE_HOME"):
        told(graph_file, provider="tensorrt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider_options": {"use_tf32": "1"}}, "provider option use_tf32: is for a GPU, got device 'cpu'"),
        ({"cuda_graph": True}, "cuda_graph: is for a GPU, got device 'cpu'"),
        ({"device": "cuda", "provider_options": {"device_id": "1"}}, "device_id: is chosen by the option device"),
        ({"device": "cuda", "provider_options": {"enable_cuda_graph": "1"}}, "is chosen by the option cuda_graph"),
        ({"device": "cuda", "provider_options": {"trt_cuda_graph_enable": "1"}}, "by the option cuda_graph"),
        ({"device": "cuda", "provider_options": {"": "1"}}, "provider option =1: expected a name and a value"),
        ({"device": "cuda", "provider_options": {"use_tf32": ""}}, "provider option use_tf32=: expected"),
        ({"device": "cuda", "provider": "tensorrt", "cuda_graph": True}, "cuda_graph: provider tensorrt has one graph"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        EngineOptions(**options)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))


def test_other_engines_refuse_what_is_onnxruntimes() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"backend": "openvino", "cuda_graph": True}, "openvino: device cuda is not served"),
        ({"backend": "tensorrt", "cuda_graph": True}, "tensorrt: cuda_graph is not served, since pycuda captures no"),
        ({"backend": "tensorrt", "provider_options": {"use_tf32": "1"}}, r"provider options \(use_tf32\) are onnxrunt"),
    ]
    for request_, message in refused:
        with pytest.raises(BackendUnavailableError, match=message):
            load(**request_)


def test_load_passes_options_on_and_takes_onnxruntime_for_them(gpu: FakeGpu) -> None:
    detector = load(provider_options={"gpu_mem_limit": "1000"}, cuda_graph=True)
    assert detector.backend.startswith("onnxruntime CUDAExecutionProvider")
    expected = {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": "1", "gpu_mem_limit": "1000"}
    assert gpu.told == [expected]


def test_the_command_line_passes_options_on(gpu: FakeGpu, photo_folder: Path, tmp_path: Path) -> None:
    command = ["predict", str(photo_folder / "coffee.jpg"), "--output", str(tmp_path)]
    command += ["--cuda-graph", "--provider-option", "use_tf32=1", "--provider-option", "gpu_mem_limit=5"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert gpu.told == [{"device_id": "0", "use_tf32": "1", "gpu_mem_limit": "5", "enable_cuda_graph": "1"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--provider-option", "use_tf32"), "--provider-option use_tf32: expected NAME=VALUE."),
        (("--provider-option", "a=1", "--device", "cpu"), "provider option a: is for a GPU, got device 'cpu'; "),
        (("--cuda-graph", "--device", "cpu"), "cuda_graph: is for a GPU, got device 'cpu'; "),
    ],
    ids=str,
)
def test_the_command_line_refuses_in_a_sentence(photo_folder: Path, arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["predict", str(photo_folder), *arguments])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith(f"error: {message}")


def test_a_loop_has_a_graph_for_each_of_its_two_states(gpu: FakeGpu, open_on_gpu: Open) -> None:
    engine = open_on_gpu("affine")
    first, second = looped(engine), looped(engine, batch=5)
    for session in (first, second):
        for _ in range(5):
            session.run()
    assert gpu.runs == [1, 2, 1, 2, 1, 3, 4, 3, 4, 3]
    np.testing.assert_array_equal(first.read("x_next"), 32 * start()["x"] + 31)
    first.feed("x", start()["x"])
    first.run()
    assert gpu.runs[-1] == 2


def test_chained_sessions_keep_their_graphs(gpu: FakeGpu, open_on_gpu: Open) -> None:
    first, second = open_on_gpu("affine").session(2), open_on_gpu("treble").session(2)
    first.link("x_next", "x", to=second)
    for seed in range(3):
        for name, array in start(seed=seed).items():
            first.feed(name, array)
        first.run()
        second.run()
        np.testing.assert_array_equal(second.read("y"), 3 * (2 * start(seed=seed)["x"] + 1))
    assert gpu.runs == [1] * 6


def test_runs_with_buffers_of_their_own_are_not_captured(gpu: FakeGpu, open_on_gpu: Open) -> None:
    open_on_gpu("affine").run(start())
    open_on_gpu("affine", cuda_graph=False).run(start())
    looped(open_on_gpu("affine", cuda_graph=False)).run()
    assert gpu.runs == [-1, None, None]


def test_a_session_whose_buffers_change_without_end_stops_capturing(gpu: FakeGpu, open_on_gpu: Open) -> None:
    session, taken = open_on_gpu("affine").session(2), []
    for name, array in start().items():
        session.feed(name, array)
    for _ in range(MOST_OF_A_SESSION + 4):
        session.run()
        taken.append(session.take("x_next"))
    assert gpu.runs == [*range(1, MOST_OF_A_SESSION + 1), -1, -1, -1, -1]


def test_an_engine_keeps_no_more_graphs_than_that(gpu: FakeGpu, open_on_gpu: Open) -> None:
    engine = open_on_gpu("affine")
    for _ in range(MOST_OF_AN_ENGINE):
        session = looped(engine)
        session.run()
        session.run()
    assert gpu.runs == [*range(1, MOST_OF_AN_ENGINE + 1)] + [-1] * MOST_OF_AN_ENGINE


RUN: dict[str, Callable[[Any, Any], Any]] = {
    "lps": lambda detector, picture: detector.promote(picture, picture.mean(axis=2) / 255, iterations=3).values,
    "cgd": lambda detector, picture: detector.predict(picture).values,
    "gicd": lambda detector, picture: [found.values for found in detector.predict_group([picture, picture[::-1]])],
}


@pytest.mark.parametrize("method", RUN)
def test_the_methods_that_loop_give_the_same_maps_with_graphs(
    gpu: FakeGpu, bundle_of: Callable[[str], Path], photos: dict[str, NDArray[np.uint8]], method: str
) -> None:
    maps = []
    for cuda_graph in (False, True):
        detector = load(bundle_of(method), backend="onnxruntime", device="cuda", threads=1, cuda_graph=cuda_graph)
        maps.append([RUN[method](detector, photos[name]) for name in ("coffee", "chelsea", "coffee")])
    for plain, captured in zip(*maps, strict=True):
        np.testing.assert_array_equal(plain, captured)
    captures = [number for number in gpu.runs if number not in (None, -1)]
    # Graphs are launched again: there are more runs than graphs.
    assert 0 < len(set(captures)) < len(captures)


def test_engines_with_graphs_take_turns(gpu: FakeGpu, open_on_gpu: Open) -> None:
    engine = open_on_gpu("affine")
    sessions = [looped(engine, seed=seed) for seed in range(4)]

    def work(session: Any) -> None:
        for _ in range(50):
            session.run()
            engine.run(start())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, sessions))
    assert gpu.most_at_once == 1
    assert [session.read("count_next").item() for session in sessions] == [50, 51, 52, 53]


def test_too_little_memory_while_running(gpu: FakeGpu, open_on_gpu: Open) -> None:
    engine = open_on_gpu("affine")
    session = looped(engine)
    gpu.fails = "CUDA failure 2: out of memory ; GPU=0"
    for call in (session.run, lambda: engine.run(start())):
        with pytest.raises(
            EngineError, match=r"affine\.onnx: failed while running \(CUDA .*; there is too little memory"
        ):
            call()


def test_a_gpu_that_is_not_there(gpu: FakeGpu, capfd: pytest.CaptureFixture[str]) -> None:
    gpu.refuses = "Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive)."
    with pytest.raises(
        BackendUnavailableError, match=r"cannot load saliency.*\.onnx \(Invalid device ID: 7.*nvidia-smi"
    ):
        load(device="cuda:7", backend="onnxruntime")
    assert capfd.readouterr().out == ""


def test_a_graph_that_cannot_be_captured(gpu: FakeGpu) -> None:
    gpu.refuses = "This session cannot use the graph capture feature as requested by the user"
    with pytest.raises(SalienceError, match="leave cuda_graph"):
        load(cuda_graph=True)


def test_on_the_cpu_nothing_is_told(gpu: FakeGpu) -> None:
    detector = load(device="cpu", backend="onnxruntime", threads=1)
    assert "CPUExecutionProvider" in detector.backend
    assert gpu.told == []
