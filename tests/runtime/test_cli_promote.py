"""`salience promote` as its user meets it: folders of pictures and priors, standard error and exit codes."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from salience.runtime import PromoterDetector, load
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.cli import app

Cli = Callable[..., Result]
NAMES = ["left/a", "left/deep/b", "right/a", "top"]


@pytest.fixture
def cli(bundle_of: Callable[[str], Path]) -> Cli:
    """Run `promote` in this process, on the bundle of these tests; no error may escape it."""

    def run(*arguments: object, code: int = 0) -> Result:
        options = [] if "--bundle" in arguments else ["--bundle", bundle_of("lps")]
        result = CliRunner().invoke(app, [str(a) for a in ("promote", "--threads", 1, *options, *arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert result.stdout == ""
        return result

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, NDArray[np.uint8]]) -> Path:
    """Four pictures in nested folders, two of them with one name."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, image in zip(NAMES, photos.values(), strict=True):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[::3, ::3]).save(path)
    return folder


@pytest.fixture(scope="module")
def made_priors(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """What `salience predict` makes of the pictures."""
    folder = tmp_path_factory.mktemp("priors")
    result = CliRunner().invoke(app, ["predict", str(pictures), "--output", str(folder), "--threads", "1"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def priors(made_priors: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(made_priors, tmp_path / "priors")


@pytest.fixture(scope="module")
def promoter(bundle_of: Callable[[str], Path]) -> PromoterDetector:
    found = load(bundle_of("lps"), threads=1)
    assert isinstance(found, PromoterDetector)
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def error_lines(result: Result) -> list[str]:
    return sorted(line for line in result.stderr.splitlines() if line.startswith("error: "))


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def results(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """The maps in a folder; nothing else may be there, nor anything that is half written."""
    found = {path: read(folder / path) for path in names(folder)}
    assert all(path.endswith(".png") and not Path(path).name.startswith(".") for path in found)
    return {path.removesuffix(".png"): values for path, values in found.items()}


@pytest.mark.parametrize("batch", [1, 3])
def test_folders_of_pictures_and_priors(
    cli: Cli, promoter: PromoterDetector, pictures: Path, priors: Path, tmp_path: Path, batch: int
) -> None:
    cli(pictures, "--prior", priors, "--output", tmp_path / "out", "--batch", batch)
    found = results(tmp_path / "out")
    assert sorted(found) == NAMES
    for name, values in found.items():
        expected = promoter.promote(pictures / f"{name}.jpg", priors / f"{name}.png").grey()
        # Batches are summed in another order, which may turn a rounding.
        assert np.abs(values.astype(int) - expected).max() <= (batch > 1)
    assert len({values.tobytes() for values in found.values()}) == 4


def test_iterations(cli: Cli, promoter: PromoterDetector, pictures: Path, priors: Path, tmp_path: Path) -> None:
    cli(pictures / "top.jpg", "--prior", priors, "--output", tmp_path / "out", "--iterations", 4)
    expected = promoter.promote(pictures / "top.jpg", priors / "top.png", 4)
    np.testing.assert_array_equal(read(tmp_path / "out" / "top.png"), expected.grey())
    assert (expected.grey() != promoter.promote(pictures / "top.jpg", priors / "top.png", 1).grey()).any()


def test_a_bundle_makes_the_priors(cli: Cli, promoter: PromoterDetector, pictures: Path, tmp_path: Path) -> None:
    cli(pictures, "--prior", DEFAULT_BUNDLE, "--output", tmp_path / "out")
    found, other = results(tmp_path / "out"), load(threads=1)
    assert sorted(found) == NAMES
    for name, values in found.items():
        expected = promoter.promote(pictures / f"{name}.jpg", other.predict)
        np.testing.assert_array_equal(values, expected.grey())


@pytest.mark.parametrize("batch", [1, 3])
def test_every_iteration_has_a_folder(
    cli: Cli, promoter: PromoterDetector, pictures: Path, priors: Path, tmp_path: Path, batch: int
) -> None:
    cli(pictures, "--prior", priors, "--output", tmp_path / "out", "--iterations", 3, "--every", "--batch", batch)
    found = results(tmp_path / "out")
    assert sorted(found) == sorted([*NAMES, *(f"{t}/{name}" for t in ("t01", "t02", "t03") for name in NAMES)])
    for name in NAMES:
        np.testing.assert_array_equal(found[name], found[f"t03/{name}"])
        steps = promoter.promote_steps(pictures / f"{name}.jpg", priors / f"{name}.png", 3)
        for t, step in enumerate(steps, start=1):
            # Rounding, as above.
            assert np.abs(found[f"t{t:02d}/{name}"].astype(int) - step.grey()).max() <= 1


def test_the_maps_of_an_iteration_are_priors_again(cli: Cli, pictures: Path, priors: Path, tmp_path: Path) -> None:
    cli(pictures, "--prior", priors, "--output", tmp_path / "first", "--every")
    cli(pictures, "--prior", tmp_path / "first" / "t01", "--output", tmp_path / "second")
    assert sorted(results(tmp_path / "second")) == NAMES


@pytest.mark.parametrize(("kind", "mode"), [("map", "L"), ("mask", "L"), ("cutout", "RGBA"), ("overlay", "RGB")])
def test_kinds(cli: Cli, pictures: Path, priors: Path, tmp_path: Path, kind: str, mode: str) -> None:
    arguments = (pictures / "top.jpg", "--prior", priors, "--output", tmp_path / "out", "--every", "--kind", kind)
    cli(*arguments, *(["--threshold", 0.5] if kind == "mask" else []))
    with Image.open(pictures / "top.jpg") as picture:
        size = picture.size
    for name in ("top.png", "t01/top.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.mode, image.size) == (mode, size)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_summary_says_how_many_where_and_on_what(
    cli: Cli, pictures: Path, priors: Path, tmp_path: Path, backend: str, precision: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    output = tmp_path / "out"
    result = cli(pictures, "--prior", priors, "--output", output, "--backend", backend, "--precision", precision)
    assert result.stderr.startswith(f"4 of 4 written to {output}, ")
    assert result.stderr.count("\n") == 1
    graph = "embed.onnx" if precision == "fp32" else "embed.fp16.onnx"
    assert f"({backend} " in result.stderr
    assert result.stderr.endswith(f"{graph}, {precision})\n")


def test_pictures_of_one_name_find_their_priors(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for source, name in (("left/a.jpg", "a.jpg"), ("top.jpg", "a.jpeg"), ("right/a.jpg", "[red]größe {x}.jpg")):
        shutil.copy(pictures / source, tmp_path / "in" / name)
    predicted = CliRunner().invoke(app, ["predict", str(tmp_path / "in"), "--output", str(tmp_path / "priors")])
    assert predicted.exit_code == 0
    cli(tmp_path / "in", "--prior", tmp_path / "priors", "--output", tmp_path / "out")
    assert names(tmp_path / "out") == names(tmp_path / "priors") == ["[red]größe {x}.png", "a.jpeg.png", "a.jpg.png"]


def test_priors_of_several_formats(
    cli: Cli, promoter: PromoterDetector, pictures: Path, priors: Path, tmp_path: Path
) -> None:
    levels = {name: read(priors / f"{name}.png") for name in NAMES}
    for name in NAMES:
        (priors / f"{name}.png").unlink()
    np.save(priors / "top.npy", levels["top"] / np.float32(255))
    Image.fromarray(levels["left/a"].astype(np.uint16) * np.uint16(257)).save(priors / "left" / "a.png")
    Image.fromarray(levels["right/a"] / np.float32(255)).save(priors / "right" / "a.TIFF")
    with (priors / "left" / "deep" / "b.NPY").open("wb") as file:
        np.save(file, levels["left/deep/b"])
    (priors / "notes.txt").write_text("no map")
    cli(pictures, "--prior", priors, "--output", tmp_path / "out")
    for name, values in results(tmp_path / "out").items():
        np.testing.assert_array_equal(values, promoter.promote(pictures / f"{name}.jpg", levels[name]).grey())


# What is done to a picture or a prior, and what is then said of it.
BREAKS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no prior": (
        lambda pictures, priors: (priors / "left/a.png").unlink(),
        "{pictures}/left/a.jpg: prior of left/a: expected one map {priors}/left/a.*, got none.",
    ),
    "two priors": (
        lambda pictures, priors: np.save(priors / "left/a.npy", np.zeros((2, 2))),
        "{pictures}/left/a.jpg: prior of left/a: expected one map {priors}/left/a.*, got a.npy, a.png.",
    ),
    "broken picture": (
        lambda pictures, priors: (pictures / "left/a.jpg").write_bytes(b"text"),
        "image {pictures}/left/a.jpg: not a picture of a known format; expected JPEG, PNG, WEBP, BMP, TIFF, GIF.",
    ),
    "broken prior": (
        lambda pictures, priors: (priors / "left/a.png").write_bytes(b"text"),
        "{pictures}/left/a.jpg: image {priors}/left/a.png: not a picture of a known format; "
        "expected JPEG, PNG, WEBP, BMP, TIFF, GIF.",
    ),
    "broken npy": (
        lambda pictures, priors: (priors / "left/a.png").rename(priors / "left/a.npy"),
        "{pictures}/left/a.jpg: map {priors}/left/a.npy: cannot be read as .npy (the magic string is not correct; "
        "expected b'\\x93NUMPY', got b'\\x89PNG\\r\\n'); is the file whole?",
    ),
    "empty prior": (
        lambda pictures, priors: Image.new("L", (5, 4)).save(priors / "left/a.png"),
        "{pictures}/left/a.jpg: prior: is 0 everywhere, expected an object and a background; "
        "give another prior, or keep such priors as they are: empty='keep', or --empty keep.",
    ),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", BREAKS)
def test_what_fails_is_named_and_the_others_are_written(
    cli: Cli, pictures: Path, priors: Path, tmp_path: Path, name: str, batch: int
) -> None:
    spoil, message = BREAKS[name]
    given = shutil.copytree(pictures, tmp_path / "in")
    spoil(given, priors)
    output = tmp_path / "out"
    result = cli(given, "--prior", priors, "--output", output, "--every", "--batch", batch, code=1)
    assert error_lines(result) == [f"error: {message.format(pictures=given, priors=priors)}"]
    assert result.stderr.splitlines()[-1].startswith(f"3 of 4 written to {output}, ")
    assert result.stderr.count("\n") == 2
    written = ["left/deep/b", "right/a", "top"]
    assert sorted(results(output)) == sorted([*written, *(f"t01/{name}" for name in written)])


def test_many_failures_are_a_line_each(cli: Cli, pictures: Path, priors: Path, tmp_path: Path) -> None:
    given = shutil.copytree(pictures, tmp_path / "in")
    (priors / "left" / "a.png").unlink()
    (given / "right" / "a.jpg").write_bytes(b"")
    Image.new("L", (5, 4), 255).save(priors / "top.png")
    result = cli(given, "--prior", priors, "--output", tmp_path / "out", code=1)
    assert len(error_lines(result)) == 3
    assert "1 of 4 written" in result.stderr
    assert sorted(results(tmp_path / "out")) == ["left/deep/b"]


@pytest.mark.parametrize("level", [0, 255])
def test_empty_priors_can_be_kept(cli: Cli, pictures: Path, priors: Path, tmp_path: Path, level: int) -> None:
    Image.new("L", (5, 4), level).save(priors / "top.png")
    cli(pictures, "--prior", priors, "--output", tmp_path / "out", "--empty", "keep", "--iterations", 2, "--batch", 3)
    found = results(tmp_path / "out")
    assert sorted(found) == NAMES
    assert (found["top"] == level).all()
    assert len(np.unique(found["left/a"])) > 10


def test_skip_existing(cli: Cli, pictures: Path, priors: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "top.png").write_text("mine")
    arguments = (pictures, "--prior", priors, "--output", output, "--skip-existing", "--every")
    result = cli(*arguments)
    assert "3 of 3 written" in result.stderr
    assert "1 skipped" in result.stderr
    assert (output / "top.png").read_text() == "mine"
    assert not (output / "t01" / "top.png").exists()
    assert "0 of 0 written" in (again := cli(*arguments).stderr)
    assert "4 skipped" in again


def test_what_was_cut_short_is_done_again(cli: Cli, pictures: Path, priors: Path, tmp_path: Path) -> None:
    # The maps of the iterations are written before the result, so a result that is there is complete.
    output = tmp_path / "out"
    arguments = (pictures, "--prior", priors, "--output", output, "--skip-existing", "--every", "--iterations", 2)
    (output / "t02" / "top.png").mkdir(parents=True)
    result = cli(*arguments, code=1)
    assert error_lines(result) == [
        f"error: {pictures / 'top.jpg'}: {output / 't02' / 'top.png'}: cannot be written (Is a directory)."
    ]
    assert not (output / "top.png").exists()
    (output / "t02" / "top.png").rmdir()
    assert "1 of 1 written" in cli(*arguments).stderr
    assert len(results(output)) == 12


def test_one_sentence_and_exit_code_1_for_what_a_user_gets_wrong(
    cli: Cli, bundle_of: Callable[[str], Path], pictures: Path, priors: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{}")
    wrong: dict[str, Sequence[object]] = {
        "priors /nope: no such folder; expected a folder of maps, or a bundle.": ("--prior", "/nope"),
        f"priors {tmp_path / 'file'}: no such folder": ("--prior", tmp_path / "file"),
        f"priors {tmp_path / 'empty'}: holds no maps; known endings: .bmp, .gif": ("--prior", tmp_path / "empty"),
        f"bundle {tmp_path / 'damaged'}: its manifest does not fit": ("--prior", tmp_path / "damaged"),
        f"prior {bundle_of('lps')}: holds lps, which needs a prior itself": ("--prior", bundle_of("lps")),
        f"bundle {DEFAULT_BUNDLE}: holds multis, expected lps": ("--prior", priors, "--bundle", DEFAULT_BUNDLE),
        "bundle /nope: no readable manifest.json": ("--prior", priors, "--bundle", "/nope"),
        "input gone.jpg: no such file": ("gone.jpg", "--prior", priors),
        f"output {tmp_path / 'file'}: is a file": ("--prior", priors, "--output", tmp_path / "file"),
        "--threshold 0.5: is for --kind mask, and the kind is map": ("--prior", priors, "--threshold", 0.5),
        "device 'tpu': expected cpu, cuda or cuda:N": ("--prior", priors, "--device", "tpu"),
    }
    for message, arguments in wrong.items():
        output = [] if "--output" in arguments else ["--output", tmp_path / "out"]
        result = cli(pictures, *output, *arguments, code=1)
        assert result.stderr.startswith(f"error: {message}")
        assert result.stderr.count("\n") == 1
        assert result.stderr.endswith(".\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [("--iterations", "0"), ("--iterations", "1001"), ("--empty", "skip"), ("--kind", "contour"), ("--batch", "0")],
)
def test_option_that_is_not_there_is_a_usage_error(
    cli: Cli, pictures: Path, priors: Path, arguments: Sequence[str]
) -> None:
    assert arguments[0] in cli(pictures, "--prior", priors, *arguments, code=2).stderr


@pytest.mark.parametrize("missing", ["--prior", "--bundle"])
def test_prior_and_bundle_must_be_given(pictures: Path, priors: Path, missing: str) -> None:
    given = {"--prior": priors, "--bundle": DEFAULT_BUNDLE}
    del given[missing]
    result = CliRunner().invoke(app, ["promote", str(pictures), *(str(x) for pair in given.items() for x in pair)])
    assert result.exit_code == 2
    assert missing in result.stderr


def test_priors_are_never_overwritten(cli: Cli, pictures: Path, priors: Path, tmp_path: Path) -> None:
    before = results(priors)
    result = cli(pictures, "--prior", priors, "--output", priors, code=1)
    assert result.stderr == (
        f"error: output {priors / 'left/a.png'}: would replace a prior, a picture or another result; "
        "choose another --output folder.\n"
    )
    first = tmp_path / "first"
    cli(pictures, "--prior", priors, "--output", first, "--every")
    cli(pictures, "--prior", first / "t01", "--output", first, "--every", code=1)
    # Below each other they do not meet.
    cli(pictures, "--prior", priors, "--output", priors / "promoted")
    for name, values in before.items():
        np.testing.assert_array_equal(read(priors / f"{name}.png"), values)


def test_maps_of_iterations_replace_no_picture_and_no_result(
    cli: Cli, pictures: Path, priors: Path, tmp_path: Path
) -> None:
    given = shutil.copytree(pictures, tmp_path / "in")
    for folder, ending in ((given, "jpg"), (priors, "png")):
        (folder / "t02").mkdir()
        shutil.copy(folder / f"top.{ending}", folder / "t02" / f"top.{ending}")
    arguments = (given, "--prior", priors, "--output", tmp_path / "out")
    # One iteration writes no t02, and without --every there are no folders of iterations.
    cli(*arguments, "--every")
    cli(*arguments, "--iterations", 2)
    result = cli(*arguments, "--iterations", 2, "--every", code=1)
    assert result.stderr.startswith(f"error: output {tmp_path / 'out' / 't02/top.png'}: would replace a prior,")
    # Pictures in a folder that is named as that of an iteration.
    source = tmp_path / "out" / "t01"
    before = results(source)
    result = cli(source, "--prior", priors, "--output", tmp_path / "out", "--every", code=1)
    assert result.stderr.startswith(f"error: output {source / 'left/a.png'}: would replace a prior, a picture or")
    for name, values in results(source).items():
        np.testing.assert_array_equal(values, before[name])


def test_manifest_of_another_kind_in_a_folder_of_maps(cli: Cli, pictures: Path, priors: Path) -> None:
    (priors / "manifest.json").write_text(json.dumps({"maps": 4}))
    result = cli(pictures, "--prior", priors, code=1)
    assert error_lines(result)[0].startswith(f"error: bundle {priors}: its manifest does not fit")


def test_help_names_the_options() -> None:
    result = CliRunner().invoke(app, ["promote", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for option in ("--prior", "--bundle", "--iterations", "--every", "--empty", "--skip-existing", "--batch"):
        assert option in result.stdout
