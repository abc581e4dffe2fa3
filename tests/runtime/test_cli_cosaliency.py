"""`salience cosaliency` as its user meets it: folders as groups, standard error and exit codes."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from salience.runtime import EngineError, GroupDetector, SalienceError, load
from salience.runtime.backends.session import Session
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.cli import app
from salience.runtime.groups import parse_bytes, plan_groups, run_groups

Cli = Callable[..., Result]
MEMBERS = {"cats": ["a.jpg", "b.jpg", "deep/c.jpg"], "cups": ["a.jpg", "d.jpg"]}


@pytest.fixture
def cli(bundle_of: Callable[[str], Path]) -> Cli:
    """Run `cosaliency` in this process, on the bundle of these tests; no error may escape it."""

    def run(*arguments: object, code: int = 0) -> Result:
        options = [] if "--bundle" in arguments else ["--bundle", bundle_of("gicd")]
        given = ("cosaliency", "--threads", 1, "--backend", "onnxruntime", *options, *arguments)
        result = CliRunner().invoke(app, [str(argument) for argument in given])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert result.stdout == ""
        return result

    return run


@pytest.fixture(scope="module")
def detector(bundle_of: Callable[[str], Path]) -> GroupDetector:
    found = load(bundle_of("gicd"), backend="onnxruntime", threads=1)
    assert isinstance(found, GroupDetector)
    return found


@pytest.fixture
def pictures(tmp_path: Path, photos: dict[str, NDArray[np.uint8]]) -> Path:
    """Two groups of pictures of several sizes."""
    folder, sources = tmp_path / "in", list(photos.values())
    for index, (group, members) in enumerate(MEMBERS.items()):
        for place, name in enumerate(members):
            path = folder / group / name
            path.parent.mkdir(parents=True, exist_ok=True)
            step = 3 + index + place
            Image.fromarray(sources[(index + place) % 4][::step, ::step]).save(path)
    return folder


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def results(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """The maps in a folder; nothing else may be there, nor anything that is half written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert all(path.suffix == ".png" and not path.name.startswith(".") for path in files)
    return {path.relative_to(folder).as_posix(): read(path) for path in files}


def error_lines(result: Result) -> list[str]:
    return sorted(line for line in result.stderr.splitlines() if line.startswith("error: "))


def expected_maps(detector: GroupDetector, folder: Path, members: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    found = detector.predict_group([folder / name for name in members])
    names = [f"{folder.name}/{Path(name).with_suffix('.png').as_posix()}" for name in members]
    return {name: saliency.grey() for name, saliency in zip(names, found, strict=True)}


def assert_same(found: dict[str, NDArray[np.uint8]], expected: dict[str, NDArray[np.uint8]]) -> None:
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        # Batches are summed in another order, which may turn a rounding.
        assert np.abs(found[name].astype(int) - values).max() <= 1
    assert len({values.tobytes() for values in found.values()}) == len(found)


@pytest.mark.parametrize("options", [(), ("--batch", 2), ("--memory", "0"), ("--memory", "500KB", "--workers", 4)])
def test_groups_land_in_folders_of_their_names(
    cli: Cli, detector: GroupDetector, pictures: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    result = cli(pictures / "cats", pictures / "cups", "--output", tmp_path / "out", *options)
    expected: dict[str, NDArray[np.uint8]] = {}
    for group, members in MEMBERS.items():
        expected |= expected_maps(detector, pictures / group, members)
    assert_same(results(tmp_path / "out"), expected)
    assert result.stderr.startswith(f"5 of 5 written to {tmp_path / 'out'}, ")
    assert result.stderr.count("\n") == 1


def test_what_is_in_a_group_decides_its_maps(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    cli(pictures / "cups", "--output", tmp_path / "first")
    (pictures / "cups" / "d.jpg").unlink()
    cli(pictures / "cups", "--output", tmp_path / "second")
    first, second = (read(tmp_path / name / "cups" / "a.png").astype(int) for name in ("first", "second"))
    assert np.abs(first - second).max() > 3


@pytest.mark.parametrize("options", [(), ("--batch", 3), ("--memory", 0)])
@pytest.mark.parametrize("name", ["0.jpg", "bb.jpg", "z.jpg"])
def test_a_broken_picture_is_named_and_the_others_are_written(
    cli: Cli, detector: GroupDetector, pictures: Path, tmp_path: Path, name: str, options: tuple[object, ...]
) -> None:
    broken = pictures / "cats" / name
    broken.write_bytes(b"no picture")
    folders = [pictures / group for group in MEMBERS]
    result = cli(*folders, "--output", tmp_path / "out", *options, code=1)
    (line,) = error_lines(result)
    assert line.startswith(f"error: image {broken}: not a picture of a known format")
    assert f"5 of 6 written to {tmp_path / 'out'}" in result.stderr
    expected = expected_maps(detector, folders[0], MEMBERS["cats"]) | expected_maps(
        detector, folders[1], MEMBERS["cups"]
    )
    assert_same(results(tmp_path / "out"), expected)


def test_a_folder_of_broken_pictures_leaves_the_others_alone(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    for name in MEMBERS["cats"]:
        (pictures / "cats" / name).write_bytes(b"no picture")
    result = cli(pictures / "cats", pictures / "cups", "--output", tmp_path / "out", code=1)
    assert len(error_lines(result)) == 3
    assert "2 of 5 written" in result.stderr
    assert sorted(results(tmp_path / "out")) == ["cups/a.png", "cups/d.png"]


def test_a_picture_that_vanishes_between_the_passes(
    detector: GroupDetector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, guide = pictures / "cats" / "b.jpg", detector.guide

    def vanish(logits: NDArray[np.float32]) -> NDArray[np.float32]:
        gone.unlink(missing_ok=True)
        return guide(logits)

    monkeypatch.setattr(detector, "guide", vanish)
    groups = plan_groups([pictures / "cats", pictures / "cups"], tmp_path / "out")
    failures = run_groups(detector, groups, memory_bytes=0)
    assert [failure.job.source for failure in failures] == [gone]
    assert "No such file" in failures[0].message
    assert len(results(tmp_path / "out")) == 4


@pytest.mark.parametrize("graph", ["embed", "segment"])
def test_an_engine_that_fails_in_a_group_leaves_the_others_alone(
    detector: GroupDetector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    genuine, runs = Session.run, list[str]()

    def failing(session: Session[Any]) -> None:
        if graph in session.label:
            runs.append(graph)
            if len(runs) == 2:
                raise EngineError(f"{session.label}: failed while running (out of memory).")
        genuine(session)

    monkeypatch.setattr(Session, "run", failing)
    (pictures / "cats" / "z.jpg").write_bytes(b"no picture")
    groups = plan_groups([pictures / "cats", pictures / "cups"], tmp_path / "out")
    done: list[int] = []
    failures = run_groups(detector, groups, memory_bytes=10**9, done=lambda: done.append(1))
    reasons = [failure.message for failure in failures if failure.job.source.name != "z.jpg"]
    assert all(reason.endswith("(out of memory).") for reason in reasons)
    # In the first pass the group is lost, in the second what was still to come.
    lost = 3 if graph == "embed" else 2
    assert len({failure.job for failure in failures}) == len(failures) == lost + 1
    assert len(results(tmp_path / "out")) == 5 - lost
    assert len(done) == 6


def test_skip_existing(cli: Cli, detector: GroupDetector, pictures: Path, tmp_path: Path) -> None:
    output, folders = tmp_path / "out", [pictures / group for group in MEMBERS]
    mine = output / "cats" / "a.png"
    mine.parent.mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(mine)
    result = cli(*folders, "--output", output, "--skip-existing")
    assert "4 of 4 written" in result.stderr
    assert "1 skipped" in result.stderr
    found = results(output)
    assert (found.pop("cats/a.png") == 9).all()
    # It counts for the consensus all the same.
    expected = expected_maps(detector, folders[0], MEMBERS["cats"]) | expected_maps(
        detector, folders[1], MEMBERS["cups"]
    )
    del expected["cats/a.png"]
    assert_same(found, expected)
    assert "0 of 0 written" in (again := cli(*folders, "--output", output, "--skip-existing").stderr)
    assert "5 skipped" in again
    assert "5 of 5 written" in cli(*folders, "--output", output).stderr
    assert read(mine).shape != (4, 4)


def test_skipped_pictures_that_are_broken_by_now_are_told(
    cli: Cli, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are missing in the consensus, and have their results."""
    output, cats = tmp_path / "out", pictures / "cats"
    cli(cats, "--output", output)
    (output / "cats" / "b.png").unlink()
    for name in ("a.jpg", "deep/c.jpg"):
        (cats / name).write_bytes(b"no picture")
    caplog.clear()
    result = cli(cats, "--output", output, "--skip-existing")
    assert f"1 of 1 written to {output}" in result.stderr
    assert "2 skipped" in result.stderr
    assert sorted(results(output)) == ["cats/a.png", "cats/b.png", "cats/deep/c.png"]
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert all("does not count in its group" in message and "\n" not in message for message in told)
    assert {str(cats / name) in " ".join(told) for name in ("a.jpg", "deep/c.jpg")} == {True}


@pytest.mark.parametrize(("kind", "mode"), [("map", "L"), ("mask", "L"), ("cutout", "RGBA"), ("overlay", "RGB")])
def test_kinds(cli: Cli, pictures: Path, tmp_path: Path, kind: str, mode: str) -> None:
    cli(pictures / "cups", "--output", tmp_path / "out", "--kind", kind)
    with Image.open(tmp_path / "out" / "cups" / "a.png") as image:
        assert image.mode == mode
        with Image.open(pictures / "cups" / "a.jpg") as picture:
            assert image.size == picture.size


def test_threshold(cli: Cli, detector: GroupDetector, pictures: Path, tmp_path: Path) -> None:
    shares = []
    for threshold in (0.2, 0.8):
        cli(pictures / "cups", "--output", tmp_path / str(threshold), "--kind", "mask", "--threshold", threshold)
        mask = read(tmp_path / str(threshold) / "cups" / "d.png")
        assert set(np.unique(mask)) <= {0, 255}
        saliency = detector.predict_group([pictures / "cups" / name for name in MEMBERS["cups"]])[1]
        assert np.abs((mask > 0).mean() - (saliency.values >= threshold).mean()) < 1e-3
        shares.append((mask > 0).mean())
    assert shares[0] > shares[1]


def test_one_sentence_and_exit_code_1_for_what_a_user_gets_wrong(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    shutil.copytree(pictures / "cups", tmp_path / "other" / "Cats")
    cats = pictures / "cats"
    wrong: dict[str, Sequence[object]] = {
        "group /nope: no such folder; a group is a folder of pictures.": ["/nope"],
        f"group {cats / 'a.jpg'}: no such folder": [cats / "a.jpg"],
        f"input {tmp_path / 'empty'}: the folder holds no pictures": [tmp_path / "empty"],
        f"groups {cats} and {tmp_path / 'other' / 'Cats'}: have the same name": [tmp_path / "other" / "Cats"],
        f"bundle {DEFAULT_BUNDLE}: holds multis, expected gicd": ["--bundle", DEFAULT_BUNDLE],
        "bundle /nope: no readable manifest.json": ["--bundle", "/nope"],
        f"output {tmp_path / 'file'}": ["--output", tmp_path / "file"],
        "memory 'much': expected a size such as 512MB or 2GB.": ["--memory", "much"],
        "memory '-1MB': expected a size": ["--memory=-1MB"],
        "--threshold 0.5: is for --kind mask, and the kind is map": ["--threshold", 0.5],
        "device 'tpu': expected cpu, cuda or cuda:N": ["--device", "tpu"],
    }
    for message, arguments in wrong.items():
        output = [] if "--output" in arguments else ["--output", tmp_path / "out"]
        result = cli(cats, *output, *arguments, code=1)
        assert result.stderr.startswith(f"error: {message}"), result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stderr.endswith(".\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--batch", 0), ("--workers", 0), ("--kind", "contour"), ("--threshold", 2)])
def test_option_out_of_range_is_a_usage_error(cli: Cli, pictures: Path, arguments: Sequence[object]) -> None:
    assert str(arguments[0]) in cli(pictures / "cups", *arguments, code=2).stderr


def test_a_folder_twice_is_one_group_or_an_error(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    result = cli(pictures / "cups", pictures / "cups", "--output", tmp_path / "out", code=1)
    assert "have the same name" in result.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_are_never_overwritten(cli: Cli, pictures: Path) -> None:
    Image.fromarray(read(pictures / "cups" / "a.jpg")).save(pictures / "cups" / "e.png")
    before = (pictures / "cups" / "e.png").read_bytes()
    result = cli(pictures / "cups", "--output", pictures, code=1)
    assert len(error_lines(result)) == 1
    assert (pictures / "cups" / "e.png").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("7", 7), ("512MB", 512_000_000), ("2gb", 2_000_000_000), ("1.5 K", 1500), (" 3 TB ", 3 * 10**12),
     ("12B", 12), (".5MB", None), ("1e3", None), ("", None), ("MB", None), ("5 PB", None), ("-1", None),
     ("1,5GB", None), ("nan", None)],
)  # fmt: skip
def test_sizes_of_memory(text: str, expected: int | None) -> None:
    if expected is None:
        with pytest.raises(SalienceError, match=rf"^memory '{text}': expected a size such as 512MB or 2GB\.$"):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == expected


def test_help_names_the_options() -> None:
    result = CliRunner().invoke(app, ["cosaliency", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for option in ("--bundle", "--output", "--memory", "--kind", "--threshold", "--batch", "--skip-existing"):
        assert option in result.stdout
