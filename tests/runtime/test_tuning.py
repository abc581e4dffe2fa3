"""Which engine serves by default is what was measured, here and on machines of as many cores."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.runtime import Bundle, BundleError, load, tuning
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import EngineOptions, available_cores
from salience.runtime.manifest import Timing, Tuning
from salience.runtime.tables import entry
from salience.runtime.tuning import tune

CPU_BACKENDS = ("onnxruntime", "openvino")


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copy")


def record(folder: Path, **changes: Any) -> None:
    """Write a tuning in which OpenVINO with one thread is the fastest."""
    pytest.importorskip("openvino")
    times = {("onnxruntime", 2): 9, ("onnxruntime", 1): 7, ("openvino", 2): 8, ("openvino", 1): 6}
    found = Tuning(
        cores=available_cores(),
        rounds=1,
        timings=tuple(
            Timing(precision="fp32", backend=backend, threads=threads, milliseconds=milliseconds)
            for (backend, threads), milliseconds in times.items()
        ),
    ).model_copy(update=changes)
    manifest = Bundle(folder).manifest.model_copy(update={"tuning": found})
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def test_every_choice_is_timed_and_recorded(copy: Path) -> None:
    backends = [
        name for name in CPU_BACKENDS if entry(BACKENDS, name, what="backend").unavailable(EngineOptions()) is None
    ]
    before = json.loads((copy / "manifest.json").read_text())
    calls: list[int] = []
    found = tune(copy, backends, rounds=1, done=calls.append)
    assert calls == [2 * len(found.timings)] * len(calls)
    assert len(calls) == calls[0]
    after = json.loads((copy / "manifest.json").read_text())
    assert Tuning.model_validate(after.pop("tuning")) == found
    assert before.pop("tuning") is None
    assert after == before
    threads = {available_cores(), max(1, available_cores() // 2)}
    wanted = {(p, b, t) for p in Bundle(copy).precisions() for b in backends for t in threads}
    assert {(t.precision, t.backend, t.threads) for t in found.timings} == wanted
    assert all(timing.milliseconds > 0 for timing in found.timings)


def test_the_fastest_is_the_one_whose_calls_are_shortest(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 0.003, 2: 0.002}
    clock = Clock()

    class Fake:
        def __init__(self, threads: int) -> None:
            self.threads = threads

        def try_out(self, image: object) -> None:
            clock.now += seconds[self.threads]

    monkeypatch.setattr(tuning, "load", lambda path, *, threads, **others: Fake(threads))
    monkeypatch.setattr(tuning, "available_cores", lambda: 2)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    found = tune(copy, ["onnxruntime"], rounds=3)
    assert found.best("fp32") == {"onnxruntime": 2}
    assert {timing.milliseconds for timing in found.timings} == {2, 3}


class Clock:
    now = 0.0


@pytest.mark.parametrize("method", ["lps", "gicd", "cgd"])
def test_every_method_can_be_timed(bundle_of: Callable[[str], Path], method: str, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle_of(method), tmp_path / "copy")
    assert tune(folder, ["onnxruntime"], rounds=1).timings


def test_auto_takes_what_was_measured_to_be_fastest(copy: Path) -> None:
    record(copy)
    found = load(copy, device="cpu")
    assert found.backend.startswith("openvino ")
    (choice, *others) = Bundle(copy).manifest.tuning.best("fp32").items()  # type: ignore[union-attr]
    assert choice == ("openvino", 1)
    assert others == [("onnxruntime", 1)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """The backends and threads that graphs of the network are opened with."""
    calls: list[tuple[str, int | None]] = []
    for name in CPU_BACKENDS:
        engine_type: Any = entry(BACKENDS, name, what="backend")
        genuine = engine_type.open.__func__

        def spy(cls: Any, bundle: Bundle, graph: str, precision: Any, options: EngineOptions, g: Any = genuine) -> Any:
            if graph == "saliency":
                calls.append((cls.name, options.threads))
            return g(cls, bundle, graph, precision, options)

        monkeypatch.setattr(engine_type, "open", classmethod(spy))
    return calls


@pytest.mark.parametrize(
    ("request_", "changes", "expected"),
    [
        ({}, {}, ("openvino", 1)),
        ({"threads": 2}, {}, ("openvino", 2)),
        ({"backend": "onnxruntime"}, {}, ("onnxruntime", 1)),
        ({"precision": "fp16"}, {}, ("onnxruntime", None)),  # not measured
        ({}, {"cores": 4096}, ("openvino", None)),  # on another machine
    ],
    ids=str,
)
def test_threads_are_the_measured_ones_unless_given(
    copy: Path, opened: list[Any], request_: dict[str, Any], changes: dict[str, Any], expected: tuple[str, int | None]
) -> None:
    record(copy, **changes)
    load(copy, device="cpu", **request_)
    assert opened == [expected]


def test_gpu_engines_stay_first(copy: Path) -> None:
    from salience.runtime.detector import _candidates, _fastest_first
    from salience.runtime.load_options import LoadOptions

    record(copy)
    tuning = Bundle(copy).manifest.tuning
    assert tuning is not None
    found = _fastest_first(_candidates(LoadOptions()), tuning, "fp32")
    assert [name for name, options in found if options.on_gpu] == ["tensorrt-rtx", "tensorrt", "onnxruntime"]
    assert [name for name, _ in found[3:]] == ["openvino", "onnxruntime"]


def test_a_bundle_that_was_verified_on_nothing_is_not_tuned(copy: Path) -> None:
    manifest = Bundle(copy).manifest
    files = {name: file for name, file in manifest.files.items() if name != "verification.json"}
    (copy / "manifest.json").write_text(manifest.model_copy(update={"files": files}).model_dump_json())
    with pytest.raises(BundleError, match="verified on no engine that runs on this machine's CPU; build it again"):
        tune(copy)
