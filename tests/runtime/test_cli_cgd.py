"""`salience predict` with a bundle of `cgd`: its options, what it prints, and mistakes."""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from salience.runtime import ClampedDescentDetector, load
from salience.runtime.cli import app
from salience.runtime.objects import choose_preset

Cli = Callable[..., Result]
CLASSES = ("cat", "dog", "car", "cup", "tree")


@pytest.fixture
def cli(bundle_of: Callable[[str], Path]) -> Cli:
    """Run `predict` in this process, on the bundle of these tests; no error may escape it."""

    def run(*arguments: object, stdin: bytes | None = None, code: int = 0) -> Result:
        options = [] if "--bundle" in arguments else ["--bundle", bundle_of("cgd")]
        command = [str(a) for a in ("predict", "--threads", 1, "--backend", "onnxruntime", *options, *arguments)]
        result = CliRunner().invoke(app, command, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture(scope="module")
def detector(bundle_of: Callable[[str], Path]) -> ClampedDescentDetector:
    found = load(bundle_of("cgd"), backend="onnxruntime", device="cpu", threads=1)
    assert isinstance(found, ClampedDescentDetector)
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def error_lines(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def read(path: Path | io.BytesIO) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_without_options_it_is_the_class_that_is_seen(
    cli: Cli, detector: ClampedDescentDetector, photo_folder: Path, tmp_path: Path
) -> None:
    result = cli(photo_folder / "coffee.jpg", "--output", tmp_path)
    assert result.stdout == ""
    assert result.stderr.startswith(f"1 of 1 written to {tmp_path}, ")
    np.testing.assert_array_equal(read(tmp_path / "coffee.png"), detector.predict(photo_folder / "coffee.jpg").grey())


def test_class_preset_and_parameters_reach_the_map(
    cli: Cli, detector: ClampedDescentDetector, photo_folder: Path, tmp_path: Path
) -> None:
    source = photo_folder / "chelsea.jpg"
    runs: list[tuple[list[str], str | None, str, dict[str, str]]] = [
        (["--class", "dog"], "dog", "default", {}),
        (["--class", "4", "--preset", "paper"], "tree", "paper", {}),
        (
            ["--set", "iterations=2", "--set", "refine=false", "--class", "CAT", "--set", "step=8"],
            "cat", "default", {"iterations": "2", "refine": "false", "step": "8"},
        ),
        (["--preset", "released", "--set", "iterations=3"], None, "released", {"iterations": "3"}),
    ]  # fmt: skip
    found = []
    for index, (arguments, target, preset, changes) in enumerate(runs):
        cli(source, "--output", tmp_path / str(index), *arguments)
        found.append(read(tmp_path / str(index) / "chelsea.png"))
        chosen = choose_preset(preset, changes)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found[-1], detector.locate(source, target, preset=chosen).grey())
    for index, values in enumerate(found):
        assert values.max() > 0
        for other in found[index + 1 :]:
            assert (values != other).any()


@pytest.mark.parametrize("batch", [1, 3])
def test_top_prints_a_line_per_picture(
    cli: Cli, detector: ClampedDescentDetector, photo_folder: Path, tmp_path: Path, batch: int
) -> None:
    result = cli(photo_folder, "--output", tmp_path, "--top", 3, "--batch", batch, "--set", "iterations=1")
    lines = sorted(result.stdout.splitlines())
    assert len(lines) == 4
    for line, path in zip(lines, sorted(photo_folder.iterdir()), strict=True):
        source, _, classes = line.rpartition(": ")
        assert source == str(path)
        told = [re.fullmatch(r"(\w+) (\d\.\d\d)", part) for part in classes.split(", ")]
        assert len(told) == 3
        pairs = [(match[1], float(match[2])) for match in told if match]
        expected = detector.locate(path).classes(3)
        assert [name for name, _ in pairs] == [name for name, _ in expected]
        # Two digits are printed.
        assert [share for _, share in pairs] == pytest.approx([share for _, share in expected], abs=0.006)
    assert len(names(tmp_path)) == 4


def test_top_does_not_depend_on_the_class_that_is_looked_for(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    told = [
        cli(photo_folder / "coffee.jpg", "--output", tmp_path, "--top", 9, "--set", "iterations=1", *extra).stdout
        for extra in ((), ("--class", "tree"))
    ]
    assert told[0] == told[1]
    assert {part.split()[0] for part in told[0].strip().rpartition(": ")[2].split(", ")} == set(CLASSES)


@pytest.mark.parametrize("kind", ["map", "overlay", "cutout", "mask"])
def test_stdin_with_a_class(cli: Cli, detector: ClampedDescentDetector, photo_folder: Path, kind: str) -> None:
    data = (photo_folder / "rocket.jpg").read_bytes()
    result = cli("-", "--class", "cup", "--set", "iterations=2", "--kind", kind, stdin=data)
    expected = detector.locate(data, "cup", preset=choose_preset("default", {"iterations": 2}))
    np.testing.assert_array_equal(read(io.BytesIO(result.stdout_bytes)), expected.render(kind))  # type: ignore[arg-type]
    assert result.stderr == ""


def test_broken_among_good(cli: Cli, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes((photo_folder / "coffee.jpg").read_bytes()[:5000])
    result = cli(
        photo_folder, tmp_path / "cut.jpg", "--output", tmp_path / "out", "--top", 1, "--class", "dog",
        "--set", "iterations=1", "--batch", 5, code=1,
    )  # fmt: skip
    (line,) = error_lines(result)
    assert line.startswith(f"error: image {tmp_path / 'cut.jpg'}: cannot be read (")
    assert "4 of 5 written" in result.stderr
    assert names(tmp_path / "out") == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.png"]
    assert len(result.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "zebra"], r"class 'zebra': none of that name, expected 0 to 4 or one name"),
        (["--class", "dag"], r"class 'dag': .*such as: dog"),
        (["--class", "5"], r"class '5': none of that name"),
        (["--set", "iterations"], r"--set iterations: expected NAME=VALUE"),
        (["--set", "iterations=no"], r"parameter iterations=no: expected a number"),
        (["--set", "steps=3"], r"parameter steps: not known, choose from iterations, "),
        (["--set", "gamma=-1"], r"gamma -1\.0: expected a number at least 0"),
        (["--set", "step=2", "--set", "scale=huge"], r"scale 'huge' is not known"),
        (["--set", "__init__=2"], r"parameter __init__: not known"),
    ],
)
def test_mistakes_are_one_sentence(
    cli: Cli, photo_folder: Path, tmp_path: Path, arguments: Sequence[str], message: str
) -> None:
    result = cli(photo_folder, "--output", tmp_path / "out", *arguments, code=1)
    assert re.match(f"error: {message}", result.stderr)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--preset", "best"), ("--top", "-1"), ("--top", "many")])
def test_option_that_is_not_there_is_a_usage_error(cli: Cli, photo_folder: Path, arguments: Sequence[str]) -> None:
    assert arguments[0] in cli(photo_folder, *arguments, code=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [("--class", "dog"), ("--preset", "paper"), ("--set", "iterations=2"), ("--set", "iterations=5"), ("--top", "2")],
)
def test_the_options_are_of_this_method_alone(
    cli: Cli, bundle: Path, photo_folder: Path, tmp_path: Path, arguments: Sequence[str]
) -> None:
    for given in ([photo_folder, "--output", tmp_path / "out"], ["-"]):
        if given == ["-"] and "--top" in arguments:
            continue
        result = cli(*given, "--bundle", bundle, *arguments, stdin=b"", code=1)
        wanted = f"error: bundle {bundle}: holds multis, expected cgd for --class, --preset, --set and --top."
        assert result.stderr.strip() == wanted
        assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_nothing_is_printed_where_the_picture_goes(cli: Cli, photo_folder: Path) -> None:
    result = cli("-", "--top", 2, stdin=(photo_folder / "rocket.jpg").read_bytes(), code=1)
    assert error_lines(result) == [result.stderr.strip()]
    assert "--top: cannot be used with input '-'" in result.stderr
    assert result.stdout_bytes == b""
