"""Builds: what they leave, what they refuse, and that half of one is never seen."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import onnx
import pytest

from salience.export import pipeline, verify
from salience.export.pipeline import BuildSettings, build
from salience.runtime import load
from salience.runtime.bundle import Bundle
from salience.runtime.errors import CheckpointError, ExportError, VerificationError


def quick(output: Path, checkpoint: Path, **changes: object) -> None:
    build("multis", checkpoint, BuildSettings(output=output, **changes), step=lambda name: nullcontext())  # type: ignore[arg-type]


@pytest.fixture
def traced(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds; tests of what follows it take the graph from the bundle."""
    monkeypatch.setattr(pipeline, "trace", lambda graph, precision: onnx.load(bundle / "saliency.onnx"))


def test_a_bundle_says_where_it_comes_from(bundle: Path, checkpoint: Path) -> None:
    manifest = Bundle(bundle).manifest
    assert manifest.method == "multis"
    assert manifest.default_precision == "fp32"
    assert set(manifest.graphs) == {"preprocess", "postprocess", "saliency"}
    assert manifest.provenance["checkpoint"] == checkpoint.name
    assert manifest.provenance["network"]["width"] == 4
    assert "torch" in manifest.provenance["versions"]
    assert {path.name for path in bundle.iterdir()} == {*manifest.files, "manifest.json"}


@pytest.mark.usefixtures("traced")
def test_a_build_can_compare_the_engines_by_speed(tmp_path: Path, checkpoint: Path) -> None:
    quick(tmp_path / "bundle", checkpoint, tune=True)
    tuning = Bundle(tmp_path / "bundle").manifest.tuning
    assert tuning is not None
    assert {(timing.precision, timing.backend) for timing in tuning.timings} == {("fp32", "onnxruntime")}


@pytest.mark.usefixtures("traced")
def test_a_graph_that_differs_from_pytorch_is_kept_out(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = vars(pipeline)["trace"]

    def spoiled(graph: object, precision: object) -> onnx.ModelProto:
        model: onnx.ModelProto = genuine(graph, precision)
        weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(pipeline, "trace", spoiled)
    with pytest.raises(VerificationError, match=r"3 of 7 checks .* relative error .* allowed 1e-04"):
        quick(tmp_path / "bundle", checkpoint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("traced")
def test_the_check_by_metric_uses_the_real_images(
    tmp_path: Path, checkpoint: Path, pairs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights make much of one grey level, in which the two resizes may differ.
    monkeypatch.setitem(verify.METRIC_TOLERANCE, "fp32", 1e-2)
    quick(tmp_path / "bundle", checkpoint, images=pairs_folder)
    record = Bundle(tmp_path / "bundle").verification()
    assert record is not None
    (check,) = record.metrics
    assert (check.images, check.backend, check.passed) == (12, "onnxruntime", True)
    assert check.f_max == pytest.approx(check.f_max_reference, abs=check.tolerance)


@pytest.mark.usefixtures("traced")
def test_a_change_of_metric_beyond_the_tolerance_is_kept_out(
    tmp_path: Path, checkpoint: Path, pairs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verify.METRIC_TOLERANCE, "fp32", 1e-9)
    with pytest.raises(VerificationError, match=r"1 of 8 checks .* 12 images: max F .* MAE"):
        quick(tmp_path / "bundle", checkpoint, images=pairs_folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("traced")
def test_a_failed_rebuild_leaves_the_old_bundle(
    tmp_path: Path, bundle: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "bundle"
    shutil.copytree(bundle, old)
    monkeypatch.setattr(pipeline, "write_manifest", lambda *args: (_ for _ in ()).throw(ExportError("disk full")))
    with pytest.raises(ExportError, match="disk full"):
        quick(old, checkpoint)
    Bundle(old)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("traced")
def test_a_rebuild_replaces_the_old_bundle(tmp_path: Path, bundle: Path, checkpoint: Path) -> None:
    old = tmp_path / "bundle"
    shutil.copytree(bundle, old)
    quick(old, checkpoint)
    assert set(Bundle(old).manifest.graphs["saliency"].files) == {"fp32"}


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="is not a bundle"):
        quick(tmp_path, checkpoint)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.usefixtures("traced")
def test_a_compiled_engine_stands_in_the_manifest(tmp_path: Path, checkpoint: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    quick(tmp_path / "bundle", checkpoint, engines=("tensorrt-rtx",), profile=(1, 2, 4), targets=("8.6",))
    (engine,) = Bundle(tmp_path / "bundle").manifest.engines
    assert (engine.graph, engine.precision, engine.builder) == ("saliency", "fp32", "tensorrt-rtx")
    assert (engine.profile, engine.targets) == ((1, 2, 4), ("8.6",))
    assert engine.bytes == (tmp_path / "bundle" / engine.file).stat().st_size > 1000


@pytest.mark.slow
def test_another_input_size_is_served(tmp_path: Path, checkpoint: Path) -> None:
    quick(tmp_path / "bundle", checkpoint, size=(32, 160))
    detector = load(tmp_path / "bundle")
    assert detector.bundle.manifest.input_size == (32, 160)
    import numpy as np

    assert detector.predict(np.zeros((7, 9, 3), np.uint8)).values.shape == (7, 9)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="multiples of 32"):
        quick(tmp_path / "bundle", checkpoint, size=(100, 100))
    assert list(tmp_path.iterdir()) == []


def command(*arguments: str) -> list[str]:
    return [sys.executable, "export/build_engine.py", *arguments]


@pytest.mark.slow
def test_a_killed_build_leaves_no_half_bundle(tmp_path: Path, checkpoint: Path, repository: Path) -> None:
    output = tmp_path / "bundle"
    process = subprocess.Popen(
        command("multis", "--checkpoint", str(checkpoint), "--output", str(output)),
        cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".*/saliency.onnx")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "choose one of multis"),
        (["multis", "--precision", "fp8"], "choose from fp32"),
        (["multis", "--engine", "coreml"], "choose from onnxruntime"),
        (["multis", "--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
        (["multis", "--size", "100", "100"], "multiples of"),
        (["multis", "--images", "nowhere"], "no such folder"),
        (["multis", "--engine", "tensorrt"], "pip install 'salience[tensorrt]'"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    checkpoint: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from salience.export import cli

    monkeypatch.setattr(pipeline, "trace", lambda graph, precision: onnx.load(bundle / "saliency.onnx"))
    given = [] if "--checkpoint" in arguments else ["--checkpoint", str(checkpoint)]
    monkeypatch.setattr(sys, "argv", ["build_engine.py", *arguments, *given, "--output", str(tmp_path / "bundle")])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_pretrained_network_builds_from_the_command_line(tmp_path: Path, repository: Path) -> None:
    output = tmp_path / "bundle"
    done = subprocess.run(
        command("multis", "--precision", "fp32", "fp16", "--engine", "openvino", "--output", str(output)),
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "verification.json").read_text())["passed"]
