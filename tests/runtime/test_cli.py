"""The `salience` command as its user meets it: files, standard streams and exit codes."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

import salience
from salience.runtime import load
from salience.runtime.cli import app
from salience.runtime.pipeline import run_jobs

PROGRAM = [sys.executable, "-c", "from salience.runtime.cli import main; main()"]
# A shell starts its background jobs, these tests among them, with interrupts ignored, and children inherit that.
INTERRUPTIBLE = [*PROGRAM[:2], f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {PROGRAM[2]}"]
Cli = Callable[..., Result]


@pytest.fixture
def cli(bundle: Path) -> Cli:
    """Run a command in this process, `predict` on the bundle of these tests; no error may escape it."""

    def run(command: str, *arguments: object, stdin: bytes | None = None, code: int = 0) -> Result:
        options = ["--bundle", bundle, "--threads", 1] if command == "predict" and "--bundle" not in arguments else []
        result = CliRunner().invoke(app, [str(a) for a in (command, *options, *arguments)], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def environment(repository: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository / "src"), "PYTHONWARNINGS": "error::UserWarning"}


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def error_lines(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").stdout == f"salience {salience.__version__}\n"
    commands = ("predict", "promote", "evaluate", "inspect", "tune")
    for arguments in (["--help"], *([command, "--help"] for command in commands)):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0
        assert "Usage" in result.stdout


def test_no_command_shows_the_commands() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    for command in ("predict", "promote", "evaluate", "inspect", "tune"):
        assert command in result.output


def test_predict_file_folder_and_pattern(cli: Cli, photo_folder: Path, tmp_path: Path, bundle: Path) -> None:
    cli("predict", photo_folder / "coffee.jpg", "--output", tmp_path / "file")
    cli("predict", photo_folder, "--output", tmp_path / "folder", "--batch", 3)
    cli("predict", photo_folder / "c*.jpg", "--output", tmp_path / "pattern")
    assert names(tmp_path) == [
        "file/coffee.png",
        "folder/astronaut.png", "folder/chelsea.png", "folder/coffee.png", "folder/rocket.png",
        "pattern/chelsea.png", "pattern/coffee.png",
    ]  # fmt: skip
    expected = load(bundle, threads=1).predict(photo_folder / "coffee.jpg").grey()
    np.testing.assert_array_equal(read(tmp_path / "file" / "coffee.png"), expected)


def test_summary_says_how_many_where_and_on_what(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    result = cli("predict", photo_folder, "--output", tmp_path, "--precision", "fp16")
    assert result.stdout == ""
    assert result.stderr.startswith(f"4 of 4 written to {tmp_path}, ")
    assert "images/s" in result.stderr
    assert "onnxruntime CPUExecutionProvider saliency.fp16.onnx, fp16" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("kind", "mode"), [("map", "L"), ("mask", "L"), ("cutout", "RGBA"), ("overlay", "RGB")])
def test_kinds(cli: Cli, photo_folder: Path, tmp_path: Path, kind: str, mode: str) -> None:
    cli("predict", photo_folder / "chelsea.jpg", "--output", tmp_path, "--kind", kind)
    with Image.open(tmp_path / "chelsea.png") as image:
        assert (image.mode, image.size) == (mode, (451, 300))


def test_threshold_is_of_masks(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    source = photo_folder / "chelsea.jpg"
    cli("predict", source, "--output", tmp_path, "--kind", "mask", "--threshold", 0)
    assert (read(tmp_path / "chelsea.png") == 255).all()
    result = cli("predict", source, "--output", tmp_path, "--threshold", 0.5, code=1)
    assert error_lines(result) == ["error: --threshold 0.5: is for --kind mask, and the kind is map."]
    cli("predict", source, "--output", tmp_path, "--kind", "mask", "--threshold", 1.5, code=2)


def test_skip_existing_leaves_what_is_there(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "coffee.png").write_text("mine")
    result = cli("predict", photo_folder, "--output", tmp_path, "--skip-existing")
    assert "3 of 3 written" in result.stderr
    assert "1 skipped" in result.stderr
    assert (tmp_path / "coffee.png").read_text() == "mine"
    assert "4 skipped" in cli("predict", photo_folder, "--output", tmp_path, "--skip-existing").stderr
    assert "4 of 4 written" in cli("predict", photo_folder, "--output", tmp_path).stderr
    assert read(tmp_path / "coffee.png").shape == (400, 600)


def test_broken_among_good(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes((photo_folder / "coffee.jpg").read_bytes()[:5000])
    (tmp_path / "notes.jpg").write_text("no picture")
    result = cli("predict", photo_folder, tmp_path, "--output", tmp_path / "out", "--batch", 4, code=1)
    lines = sorted(error_lines(result))
    assert len(lines) == 2
    assert lines[0].startswith(f"error: image {tmp_path / 'cut.jpg'}: cannot be read (")
    assert lines[1].startswith(f"error: image {tmp_path / 'notes.jpg'}: not a picture of a known format")
    assert "4 of 6 written" in result.stderr
    assert names(tmp_path / "out") == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.png"]


def test_odd_names(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    odd = ["größe 日本.jpg", "[red]b[1].jpg", "-dash.jpg", "%s {x}.jpg"]
    for name in odd:
        (tmp_path / name).write_bytes((photo_folder / "chelsea.jpg").read_bytes())
    (tmp_path / "[bold].jpg").write_text("no picture")
    result = cli("predict", tmp_path, "--output", tmp_path / "out [1]", code=1)
    assert names(tmp_path / "out [1]") == sorted(Path(name).stem + ".png" for name in odd)
    assert f"{tmp_path / '[bold].jpg'}: not a picture" in result.stderr


def test_leading_dash_after_two_dashes(
    cli: Cli, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-a.jpg").write_bytes((photo_folder / "chelsea.jpg").read_bytes())
    cli("predict", "--output", "out", "--", "-a.jpg")
    assert names(tmp_path / "out") == ["-a.png"]


def test_one_sentence_and_exit_code_1_for_what_a_user_gets_wrong(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    wrong: dict[str, Sequence[object]] = {
        "bundle /nope: no readable manifest.json": (photo_folder, "--bundle", "/nope"),
        "input gone.jpg: no such file": ("gone.jpg",),
        f"input {tmp_path / 'empty'}: the folder holds no pictures": (tmp_path / "empty",),
        "input gone/*.jpg: the pattern matches no pictures": ("gone/*.jpg",),
        "input '-': reads one picture from stdin": (photo_folder, "-"),
        f"output {tmp_path / 'file'}: is a file": (photo_folder, "--output", tmp_path / "file"),
        "device 'tpu': expected cpu, cuda or cuda:N": (photo_folder, "--device", "tpu"),
        "provider 'cuda': does not run on device 'cpu'": (photo_folder, "--device", "cpu", "--provider", "cuda"),
        "openvino: device cuda is not served": (photo_folder, "--device", "cuda", "--backend", "openvino"),
    }
    for message, arguments in wrong.items():
        result = cli("predict", *arguments, code=1)
        assert result.stdout == ""
        assert result.stderr.startswith(f"error: {message}")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("--kind", "contour"), ("--backend", "tflite"), ("--batch", "0"), ("--workers", "x"), ("--nope",)]
)
def test_option_that_is_not_there_is_a_usage_error(cli: Cli, photo_folder: Path, arguments: Sequence[str]) -> None:
    assert arguments[0] in cli("predict", photo_folder, *arguments, code=2).stderr


def test_output_that_cannot_be_written(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("predict", photo_folder / "coffee.jpg", "--output", tmp_path / "file" / "below", code=1)
    target = tmp_path / "file" / "below" / "coffee.png"
    assert error_lines(result) == [
        f"error: {photo_folder / 'coffee.jpg'}: {target}: cannot be written (Not a directory)."
    ]
    assert "0 of 1 written" in result.stderr


def test_second_run_does_not_predict_its_own_results(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "coffee.jpg").write_bytes((photo_folder / "coffee.jpg").read_bytes())
    for _ in range(2):
        assert "1 of 1 written" in cli("predict", tmp_path, "--output", tmp_path / "saliency").stderr
    assert names(tmp_path) == ["coffee.jpg", "saliency/coffee.png"]


def test_stdin_errors(cli: Cli) -> None:
    for data in (b"", b"no picture"):
        result = cli("predict", "-", stdin=data, code=1)
        assert result.stdout_bytes == b""
        assert len(error_lines(result)) == 1


def test_stdin_to_stdout_is_one_png_and_nothing_else(
    bundle: Path, photo_folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    data = (photo_folder / "coffee.jpg").read_bytes()
    command = [*PROGRAM, "predict", "-", "--bundle", str(bundle), "--kind", "overlay"]
    found = subprocess.run(command, input=data, capture_output=True, env=environment, cwd=tmp_path, check=True)
    assert found.stderr == b""
    with Image.open(io.BytesIO(found.stdout)) as image:
        np.testing.assert_array_equal(np.asarray(image), load(bundle).predict(data).overlay())
    # Nothing follows the picture, and nothing was written beside.
    assert found.stdout.endswith(b"IEND\xaeB`\x82")
    assert names(tmp_path) == []


def test_program_exits_with_1_and_no_traceback(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [*PROGRAM, "inspect", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(f"error: bundle {tmp_path}: no readable manifest.json")
    assert found.stderr.count("\n") == 1


def test_reader_that_leaves_early_is_no_error_message(bundle: Path, environment: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*PROGRAM, "inspect", str(bundle)]
    try:
        found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    finally:
        os.close(writer)
    assert (found.returncode, found.stderr) == (1, "")


@pytest.fixture
def started(
    bundle: Path, photo_folder: Path, tmp_path: Path, environment: dict[str, str]
) -> tuple[subprocess.Popen[str], list[str], Path]:
    """A run over 60 pictures that has written at least two: the process, its command, and its output."""
    (tmp_path / "in").mkdir()
    for index in range(60):
        (tmp_path / "in" / f"{index:02d}.jpg").symlink_to(photo_folder / "astronaut.jpg")
    output = tmp_path / "out"
    command = [*INTERRUPTIBLE, "predict", str(tmp_path / "in"), "--bundle", str(bundle), "--output", str(output),
               "--kind", "cutout", "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (output.exists() and len(list(output.glob("[0-9]*.png"))) > 1):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process, command, output


def test_killed_run_leaves_whole_files_and_can_be_finished(
    started: tuple[subprocess.Popen[str], list[str], Path], environment: dict[str, str]
) -> None:
    process, command, output = started
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    visible = [path for path in output.iterdir() if not path.name.startswith(".")]
    assert 2 <= len(visible) < 60
    before = {path: (path.stat().st_mtime_ns, read(path).shape) for path in visible}
    assert {shape for _, shape in before.values()} == {(512, 512, 4)}
    found = subprocess.run([*command, "--skip-existing"], capture_output=True, text=True, env=environment, check=True)
    assert f"{60 - len(visible)} of {60 - len(visible)} written" in found.stderr
    assert f"{len(visible)} skipped" in found.stderr
    assert len(list(output.glob("[0-9]*.png"))) == 60
    assert all(path.stat().st_mtime_ns == changed for path, (changed, _) in before.items())


def test_interrupted_run_ends_at_once_and_leaves_whole_files(
    started: tuple[subprocess.Popen[str], list[str], Path],
) -> None:
    process, _, output = started
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert len(names(output)) < 60
    assert all(read(path).shape == (512, 512, 4) for path in output.iterdir())


def test_bundle_that_needs_a_prior_is_for_promote(
    cli: Cli, bundle_of: Callable[[str], Path], pairs_folder: Path, photo_folder: Path, tmp_path: Path
) -> None:
    promoter, output = bundle_of("lps"), ("--output", tmp_path / "out")
    pairs = ("--images", pairs_folder / "images", "--masks", pairs_folder / "masks")
    for result in (
        cli("predict", photo_folder, "--bundle", promoter, *output, code=1),
        cli("predict", "-", "--bundle", promoter, *output, stdin=b"", code=1),
        cli("evaluate", "--bundle", promoter, *pairs, code=1),
    ):
        assert result.stdout == ""
        assert result.stderr == (
            f"error: bundle {promoter}: holds lps, which promotes a prior; "
            "use promote(image, prior), or on the command line: salience promote.\n"
        )
    assert not (tmp_path / "out").exists()


def test_inspect_good_bundle(cli: Cli, bundle: Path) -> None:
    result = cli("inspect", bundle)
    for text in ("multis", "64 x 96", "saliency.onnx", "Verification: passed", "openvino", "multis-small.safetensors"):
        assert text in result.stdout
    # A checksum in half is of no use: cells fold, they are not cut.
    assert "…" not in result.stdout


def test_inspect_shows_markup_as_it_stands(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    for path in bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["provenance"]["checkpoint"] = "[bold]a[/b].safetensors"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "[bold]a[/b].safetensors" in cli("inspect", tmp_path).stdout


@pytest.mark.parametrize(("on_gpu", "expected"), [(False, 2), (True, 1)])
def test_several_calls_at_once_are_for_cpus(
    cli: Cli, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_gpu: bool, expected: int
) -> None:
    seen: list[int] = []

    def watched(*arguments: Any, calls: int, **options: Any) -> Any:
        seen.append(calls)
        return run_jobs(*arguments, calls=calls, **options)

    monkeypatch.setattr("salience.runtime.cli.folders.run_jobs", watched)
    monkeypatch.setattr("salience.runtime.cli.folders.available_cores", lambda: 2)
    monkeypatch.setattr("salience.runtime.detector.Detector.on_gpu", on_gpu)
    cli("predict", photo_folder, "--output", tmp_path)
    assert seen == [expected]


def test_tune_records_what_inspect_shows(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path, dirs_exist_ok=True)
    assert "Speed on the CPU" not in cli("inspect", tmp_path).stdout
    for command in (("tune", tmp_path, "--rounds", 1), ("inspect", tmp_path)):
        shown = cli(*command).stdout
        assert "Speed on the CPU" in shown
        assert shown.count("chosen") == len(load(tmp_path).bundle.precisions())


def test_tune_what_is_no_bundle(cli: Cli, tmp_path: Path) -> None:
    result = cli("tune", tmp_path, code=1)
    assert error_lines(result)[0].startswith(f"error: bundle {tmp_path}: no readable manifest.json")


def test_inspect_names_the_layers_that_stay_fp32(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "verification.json"
    layers = [
        {"graph": "saliency", "layer": f"conv{n}", "relative": n / 10, "multiply_adds": 5, "kept": n > 2}
        for n in range(4)
    ]
    record = json.loads(path.read_text())
    record["quantization"] = {
        **dict.fromkeys(("calibrated", "corrected", "tuned"), 64), "limit": 5e-3, "layers": layers, "trials": [],
    }  # fmt: skip
    path.write_text(json.dumps(record))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    entry = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    manifest["files"]["verification.json"] = entry
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shown = " ".join(cli("inspect", tmp_path).stdout.split())
    assert "ranges of 64 pictures, 1 of 4 layers stay fp32 (25.0% of the multiply-adds)" in shown
    assert "conv3" in shown
    assert "conv2" not in shown


def test_inspect_damaged_bundle(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    for path in bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "saliency.fp16.onnx").write_bytes(b"x")
    result = cli("inspect", tmp_path, code=1)
    assert result.stdout == ""
    assert error_lines(result)[0].startswith(f"error: bundle {tmp_path}: saliency.fp16.onnx is damaged")


@pytest.fixture
def scored(pairs_folder: Path) -> tuple[Path, Path]:
    """Pictures, and their masks."""
    pytest.importorskip("py_sod_metrics")
    return pairs_folder / "images", pairs_folder / "masks"


def test_evaluate_predictions_with_report(cli: Cli, scored: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = scored
    cli("predict", images, "--output", tmp_path / "maps")
    result = cli(
        "evaluate", "--predictions", tmp_path / "maps", "--masks", masks, "--images", images,
        "--report", tmp_path / "report",
    )  # fmt: skip
    assert "Scores of 12 images" in result.stdout
    for score in ("MAE", "max F", "max F of mean PR", "mean of max F", "adaptive F", "mean F", "S"):
        assert score in result.stdout
    assert {"report.html", "scores.json", "curves.png", "contact_sheet.png"} <= set(names(tmp_path / "report"))
    assert f"report: {tmp_path / 'report'}" in result.stderr


def test_evaluate_bundle_scores_what_predict_writes(
    cli: Cli, scored: tuple[Path, Path], bundle: Path, tmp_path: Path
) -> None:
    images, masks = scored
    cli("predict", images, "--output", tmp_path)
    stored = cli("evaluate", "--predictions", tmp_path, "--masks", masks, "--json")
    served = cli("evaluate", "--bundle", bundle, "--images", images, "--masks", masks, "--json")
    scores: dict[str, Any] = json.loads(served.stdout)
    assert scores["images"] == 12
    assert 0 < scores["mae"] < 1
    assert scores == json.loads(stored.stdout)


def test_evaluate_perfect_maps(cli: Cli, scored: tuple[Path, Path], tmp_path: Path) -> None:
    _, masks = scored
    for path in masks.rglob("*.png"):
        target = tmp_path / path.relative_to(masks)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    scores = json.loads(cli("evaluate", "--predictions", tmp_path, "--masks", masks, "--json").stdout)
    assert scores["mae"] == 0
    assert scores["f_max"] == pytest.approx(1)


def test_evaluate_names_what_could_not_be_scored(cli: Cli, scored: tuple[Path, Path], tmp_path: Path) -> None:
    _, masks = scored
    for path in masks.rglob("*.png"):
        target = tmp_path / path.relative_to(masks)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    broken = tmp_path / "left" / "03.png"
    broken.write_bytes(b"")
    result = cli("evaluate", "--predictions", tmp_path, "--masks", masks, "--json", code=1)
    assert json.loads(result.stdout)["images"] == 11
    assert len(error_lines(result)) == 1
    assert str(broken) in error_lines(result)[0]
    broken.unlink()
    result = cli("evaluate", "--predictions", tmp_path, "--masks", masks, code=1)
    assert "1 of 12 masks have no map (left/03)" in error_lines(result)[0]


@pytest.mark.parametrize("value", [1, 128])
def test_evaluate_refuses_masks_of_another_scale(
    cli: Cli, scored: tuple[Path, Path], tmp_path: Path, value: int
) -> None:
    """All of them would be read as empty, and every map be scored against nothing."""
    _, masks = scored
    for path in masks.rglob("*.png"):
        target = tmp_path / path.relative_to(masks)
        target.parent.mkdir(exist_ok=True)
        Image.fromarray((np.asarray(Image.open(path).convert("L")) > 128) * np.uint8(value)).save(target)
    result = cli("evaluate", "--predictions", masks, "--masks", tmp_path, "--json", code=1)
    assert result.stdout == ""
    assert f"holds the values 0, {value}, " in error_lines(result)[0]
    assert "255" in error_lines(result)[0]


def copy_masks(masks: Path, target: Path) -> Path:
    """The masks as perfect maps."""
    return Path(shutil.copytree(masks, target))


def test_evaluate_compares_methods(cli: Cli, scored: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = scored
    perfect = copy_masks(masks, tmp_path / "perfect")
    cli("predict", images, "--output", tmp_path / "maps")
    arguments = ("evaluate", "--predictions", perfect, f"ours={tmp_path / 'maps'}", "--masks", masks)
    found = json.loads(cli(*arguments, "--json").stdout)["methods"]
    assert list(found) == ["perfect", "ours"]
    assert found["perfect"]["mae"] == 0
    assert found["ours"] == json.loads(
        cli("evaluate", "--predictions", tmp_path / "maps", "--masks", masks, "--json").stdout
    )
    assert list(found["ours"]["sources"]) == sorted({path.parent.name for path in masks.rglob("*.png")})
    result = cli(*arguments, "--report", tmp_path / "report", "--no-per-source")
    assert re.search(r"^ *perfect +12 +0\.0000 ", result.stdout, re.MULTILINE)
    assert "source" not in result.stdout
    assert {"curves.png", "ours/report.html", "perfect/scores.json", "report.html", "scores.json"} <= set(
        names(tmp_path / "report")
    )


def test_evaluate_names_the_methods_that_lack_maps(cli: Cli, scored: tuple[Path, Path], tmp_path: Path) -> None:
    _, masks = scored
    whole, partial = copy_masks(masks, tmp_path / "whole"), copy_masks(masks, tmp_path / "partial")
    (partial / "left" / "03.png").unlink()
    result = cli("evaluate", "--predictions", whole, partial, "--masks", masks, code=1)
    (line,) = error_lines(result)
    assert f"maps {partial}: 1 of 12 masks have no map (left/03)" in line
    assert str(whole) not in line


def test_evaluate_compares_bundles(cli: Cli, scored: tuple[Path, Path], bundle: Path) -> None:
    images, masks = scored
    arguments = ("evaluate", "--images", images, "--masks", masks, "--json")
    found = json.loads(cli(*arguments, "--bundle", f"a={bundle}", f"b={bundle}").stdout)["methods"]
    alone = json.loads(cli(*arguments, "--bundle", bundle).stdout)
    assert found == {"a": alone, "b": alone}


def test_evaluate_needs_maps_or_pictures(cli: Cli, scored: tuple[Path, Path], bundle: Path) -> None:
    images, masks = scored
    for arguments in ((), ("--bundle", bundle), ("--predictions", images, "--bundle", bundle)):
        result = cli("evaluate", "--masks", masks, *arguments, code=1)
        assert error_lines(result)[0].startswith("error: evaluation: give either --predictions DIR, or --images DIR")
    result = cli("evaluate", "--images", images, "--masks", masks, "--bundle", "/nope", code=1)
    assert error_lines(result)[0].startswith("error: bundle /nope: no readable manifest.json")
