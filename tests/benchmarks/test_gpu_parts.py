"""What the GPU check's parts compute, on the CPU in a GPU's place, and that each of them can fail."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import gpu_checks, gpu_loops, gpu_speed, gpu_torch
from benchmarks.gpu_forms import forms, workload_of
from benchmarks.gpu_material import Material, maps_of, prepare_scenes, write_classifier
from benchmarks.gpu_prepare import prepare
from benchmarks.gpu_record import Row, Setting
from benchmarks.gpu_torch import TorchSession
from salience.export.cli import PRETRAINED
from salience.runtime import load
from salience.runtime.errors import EngineError
from salience.runtime.methods import METHODS
from salience.runtime.methods.lps import RefineLoop
from salience.training.checkpoint import load_checkpoint


@pytest.fixture
def setting(tmp_path: Path, checkpoints: dict[str, Path], bundle_of: Callable[[str], Path]) -> Setting:
    """The CPU, and small networks where the packaged ones would be taken."""
    for method in METHODS:
        (tmp_path / f"{method}.safetensors").symlink_to(checkpoints[method])
        for precision in ("fp32", "fp16", "fp16-weights"):
            (tmp_path / f"{method}-{precision}-onnxruntime").symlink_to(bundle_of(method))
    return Setting(device="cpu", folder=tmp_path, quick=True)


def named(rows: list[Row], measure: str) -> dict[tuple[str, str], Row]:
    return {(row.method, row.form): row for row in rows if row.measure == measure}


def test_every_method_in_pytorch_is_compared_in_every_precision(setting: Setting) -> None:
    errors = named(list(gpu_checks.pytorch(setting)), "relative error")
    assert set(errors) == {(method, f"PyTorch, {p}") for method in METHODS for p in ("fp32", "fp16", "bf16")}
    for method in METHODS:
        exact, *rounded = (errors[method, f"PyTorch, {p}"] for p in ("fp32", "fp16", "bf16"))
        assert exact.passed, exact
        assert exact.value is not None
        assert all(row.value is not None and row.value > exact.value for row in rounded), "precision made no difference"


def test_onnxruntime_is_compared_with_itself_on_the_cpu(setting: Setting) -> None:
    rows = list(gpu_checks.onnxruntime(setting))
    assert {row.method for row in rows} == set(METHODS)
    exact = [row for row in rows if row.form.endswith("fp32")]
    assert len(exact) == len(METHODS) + 2 * (len(METHODS) - 1)
    assert all(row.value == 0 and row.passed for row in exact)


def test_other_maps_and_engines_that_fail_are_failed_rows(setting: Setting) -> None:
    material = Material(setting.folder, quick=True)

    def inverted(method: str, precision: Any) -> Any:
        if method == "arn":
            raise EngineError("arn: got no engine, expected one; build it.")
        detector = material.reference(method)
        original = detector.infer
        detector.infer = lambda prepared, **options: 1 - original(prepared, **options)  # type: ignore[method-assign]
        return detector

    rows = list(gpu_checks._compare(material, "broken", ("fp32",), inverted, methods=("multis", "arn")))
    error, *scores, refused = rows
    assert (error.measure, error.passed) == ("relative error", False)
    assert [row.measure for row in scores] == ["change of max F", "change of MAE"]
    assert False in [row.passed for row in scores]
    assert (refused.method, refused.passed) == ("arn", False)
    assert "build it" in refused.note


def test_loops_copy_nothing(setting: Setting) -> None:
    rows = list(gpu_loops.loops(setting))
    assert {(row.method, row.form.partition(",")[0]) for row in rows} == {
        (method, form) for method in gpu_loops.LOOPED for form in ("PyTorch", "ONNX Runtime")
    }
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]


def test_a_loop_that_copies_is_found(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    step = RefineLoop.step

    def reading(self: RefineLoop, state: Any) -> Any:
        found = step(self, state)
        self.read()
        return found

    monkeypatch.setattr(RefineLoop, "step", reading)
    material = Material(setting.folder, quick=True)
    (row,) = gpu_loops._loop_rows("lps", "PyTorch", material.torch_detector("lps", "fp32", "cpu"))
    assert (row.value, row.passed) == (gpu_loops.STEPS, False)


def test_copies_between_nodes_are_read_from_a_profile() -> None:
    events: list[dict[str, Any]] = [
        {"name": "model_run"},
        {"name": "conv", "args": {"op_name": "Conv", "output_size": "4000000"}},
        {"name": "a", "args": {"op_name": "MemcpyToHost", "output_size": "16"}},
        {"name": "b", "args": {"op_name": "MemcpyFromHost", "output_size": "50176"}},
    ]
    assert gpu_loops.largest_copy(events) == 50176
    assert gpu_loops.largest_copy(events[:2]) == 0


def test_tensors_of_pytorch_are_taken_and_given_without_a_copy(setting: Setting) -> None:
    rows = [row for row in gpu_loops.arrays(setting) if row.form == "PyTorch"]
    assert [row.measure for row in rows] == ["nothing is copied", "relative error"]
    assert all(row.passed for row in rows), rows


def test_what_a_user_is_told_is_judged() -> None:
    def fail(error: Exception) -> Callable[[], object]:
        def call() -> object:
            raise error

        return call

    words = ("memory", "batch")
    said = gpu_checks._told("too large", fail(EngineError("no memory; take a smaller batch.")), words)
    vague = gpu_checks._told("too large", fail(EngineError("error 2.")), words)
    silent = gpu_checks._told("too large", lambda: None, words)
    assert [row.passed for row in (said, vague, silent)] == [True, False, False]
    with pytest.raises(ZeroDivisionError):
        gpu_checks._told("too large", fail(ZeroDivisionError()), words)


def test_the_card_is_measured(setting: Setting) -> None:
    rows = list(gpu_speed.peak(setting))
    assert [row.unit for row in rows] == ["TFLOP/s"] * 3 + ["GB/s"]
    assert all(row.value is not None and row.value > 0 for row in rows)


def test_replayed_steps_are_those_one_by_one(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(session: TorchSession) -> Any:
        """As a CUDA graph: bound for good to the buffers that are there."""
        bound = dict(session._bound)

        def replay() -> None:
            found = session._engine.call([bound[name] for name in session._engine.inputs])
            for name, values in zip(session._engine.outputs, found, strict=True):
                bound[name].copy_(values)

        return SimpleNamespace(replay=replay)

    monkeypatch.setattr(TorchSession, "_capture", capture)
    monkeypatch.setattr(gpu_loops, "works", lambda backend, device: False)
    rows = list(gpu_loops.graphs(setting))
    assert [row.method for row in rows] == list(METHODS)
    assert all(row.passed for row in rows), rows
    # One graph for all buffers reads what the first step read.
    monkeypatch.setattr(gpu_torch, "_MOST_GRAPHS", 1)
    monkeypatch.setattr(TorchSession, "_addresses", lambda session: ())
    wrong = {row.method: row.passed for row in gpu_loops.graphs(setting)}
    assert wrong["lps"] is False


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_form_is_timed(method: str, tmp_path: Path) -> None:
    setting = Setting(device="cpu", folder=tmp_path, quick=True)
    rows = list(getattr(gpu_speed, method)(setting))
    names = forms(workload_of(method, setting), setting)
    assert set(names) == {"PyTorch eager, fp32", "PyTorch eager, fp16", "salience, PyTorch", "salience, onnxruntime"}
    for name in names:
        found = {row.measure: row.value for row in rows if row.form == name}
        assert set(found) == {"p50", "p99", "speed", "of the matrix peak", "of the copy's bandwidth"}, (name, rows)
        assert all(value is not None and value > 0 for value in found.values())


@pytest.mark.slow
def test_bundles_are_built_side_by_side(tmp_path: Path) -> None:
    setting = Setting(device="cpu", folder=tmp_path, quick=True)
    rows = list(prepare(setting))
    assert len(rows) == 3 * len(METHODS)
    found = load(tmp_path / "cgd-fp16-onnxruntime", backend="onnxruntime", device="cpu")
    prepared, _ = prepare_scenes(found, 1)
    assert maps_of(found, prepared).max() == 1


def test_the_classifier_is_that_of_gicd(tmp_path: Path) -> None:
    write_classifier(tmp_path / "cgd.safetensors", PRETRAINED / "gicd-mobilenet_v2.safetensors")
    (_, network), (_, source) = (
        load_checkpoint(path) for path in (tmp_path / "cgd.safetensors", PRETRAINED / "gicd-mobilenet_v2.safetensors")
    )
    weights = source.state_dict()
    assert all((value == weights[name]).all() for name, value in network.state_dict().items())
