"""Inputs of the command line become jobs: each picture once, each result in a file of its own, nothing overwritten."""

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salience.runtime import DataError
from salience.runtime.jobs import _targets, plan_jobs


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are given as a user types them: relative to here."""
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def plan(*inputs: str, output: str = "out") -> dict[str, str]:
    """Source -> target below the output folder."""
    jobs = plan_jobs(inputs, Path(output))
    return {job.source.as_posix(): job.target.relative_to(output).as_posix() for job in jobs}


def test_files_and_folders() -> None:
    touch(
        "a.jpg", "photos/b.JPEG", "photos/deep/er/c.webp", "photos/notes.txt", "photos/.hidden.jpg", "photos/.d/e.jpg"
    )
    assert plan("a.jpg", "photos") == {
        "a.jpg": "a.png",
        "photos/b.JPEG": "b.png",
        "photos/deep/er/c.webp": "deep/er/c.png",
    }


def test_file_is_taken_whatever_its_suffix() -> None:
    touch("scan", "photo.v1", ".hidden.jpg")
    assert plan("scan", "photo.v1", ".hidden.jpg") == {
        "scan": "scan.png",
        "photo.v1": "photo.png",
        ".hidden.jpg": ".hidden.png",
    }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", {"photos/a.jpg": "a.png"}),
        ("photos/**/*.jpg", {"photos/a.jpg": "a.png", "photos/x/b.jpg": "x/b.png", "photos/x/y/b.jpg": "x/y/b.png"}),
        ("photos/x/?.jpg", {"photos/x/b.jpg": "b.png"}),
        ("ph*s/x/[a-c].jpg", {"photos/x/b.jpg": "photos/x/b.png"}),
        ("photos/*", {"photos/a.jpg": "a.png", "photos/x/b.jpg": "x/b.png", "photos/x/y/b.jpg": "x/y/b.png"}),
    ],
)
def test_patterns_keep_the_place_below_their_first_wildcard(pattern: str, expected: dict[str, str]) -> None:
    touch("photos/a.jpg", "photos/x/b.jpg", "photos/x/y/b.jpg", "photos/notes.txt")
    Path("photos/empty").mkdir()
    assert plan(pattern) == expected


def test_targets_of_a_pattern_do_not_depend_on_what_else_is_there() -> None:
    # Else --skip-existing would take one picture's result for another's.
    touch("photos/x/a.jpg")
    before = plan("photos/**/*.jpg")
    touch("photos/w/a.jpg")
    assert plan("photos/**/*.jpg").items() >= before.items()


def test_brackets_spaces_unicode_and_a_leading_dash() -> None:
    names = ["-a.jpg", "b[1].jpg", "größe ✓ 日本.jpg", "album [2020]/c*.jpg", "album [2020]/d.jpg"]
    touch(*names)
    assert list(plan(*names)) == names
    assert plan("album [2020]/*.jpg") == {"album [2020]/c*.jpg": "c*.png", "album [2020]/d.jpg": "d.png"}


def test_each_picture_once_however_it_is_spelled() -> None:
    touch("photos/a.jpg", "photos/b.jpg")
    here = Path.cwd()
    Path("link").symlink_to("photos")
    found = plan(
        "photos/a.jpg", "./photos/a.jpg", "photos/../photos/a.jpg", str(here / "photos/a.jpg"), "photos", "link"
    )
    assert found == {"photos/a.jpg": "a.png", "photos/b.jpg": "b.png"}


def test_links_among_pictures_are_pictures_and_loops_end() -> None:
    touch("photos/a.jpg")
    Path("photos/b.jpg").symlink_to("a.jpg")
    Path("photos/gone.jpg").symlink_to("nowhere.jpg")
    Path("photos/again").symlink_to(".")
    assert plan("photos") == {"photos/a.jpg": "a.png", "photos/b.jpg": "b.png"}


def test_names_that_would_meet_keep_their_suffix() -> None:
    touch("photos/a.jpg", "photos/a.png", "photos/b.jpg", "photos/x/a.jpg")
    assert plan("photos") == {
        "photos/a.jpg": "a.jpg.png",
        "photos/a.png": "a.png.png",
        "photos/b.jpg": "b.png",
        "photos/x/a.jpg": "x/a.png",
    }


def test_equal_names_from_several_folders_are_numbered() -> None:
    touch("x/a.jpg", "y/a.jpg", "z/a.jpg", "z/a.jpg-2.jpg")
    found = plan("x/a.jpg", "y/a.jpg", "z/a.jpg", "z/a.jpg-2.jpg")
    assert list(found.values()) == ["a.jpg.png", "a.jpg-3.png", "a.jpg-4.png", "a.jpg-2.png"]


def test_names_that_differ_in_case_do_not_meet_on_any_file_system() -> None:
    touch("photos/A.jpg", "photos/a.jpg", "photos/a.JPG", "Photos/b.jpg")
    if len(os.listdir("photos")) < 3:  # noqa: PTH208
        pytest.skip("this file system takes a.jpg and A.jpg for one")
    targets = [target.casefold() for target in plan("photos").values()]
    assert len(set(targets)) == len(targets) == 3


@given(st.lists(st.from_regex(r"([ab]/)?[aAb](-[23])?(\.(jpg|JPG|png|jpg-2)){0,2}", fullmatch=True), max_size=9))
def test_targets_are_unique_png_names_in_the_same_folders(names: list[str]) -> None:
    paths = [Path(name) for name in names]
    targets = _targets(paths)
    assert len({target.as_posix().casefold() for target in targets}) == len(paths)
    assert [target.parent for target in targets] == [path.parent for path in paths]
    assert all(target.suffix == ".png" for target in targets)


def test_many_equal_names_take_no_quadratic_time() -> None:
    # 20,000 numbers, each searched for from 2 on, would take minutes.
    targets = _targets([Path("a.jpg")] * 20_000)
    assert (targets[1].name, targets[-1].name) == ("a.jpg-2.png", "a.jpg-20000.png")


def test_input_that_is_missing_is_named() -> None:
    touch("photos/a.jpg")
    for text in ("gone.jpg", "gone/b.jpg", "photos/a.jpg/b.jpg", "x" * 300, ""):
        with pytest.raises(DataError, match=f"input {text or repr(text)}: "):
            plan("photos", text)


def test_input_without_pictures_is_named() -> None:
    touch("texts/a.txt", "texts/.b.jpg")
    for text in ("texts", "texts/*.jpg", "texts/**", "gone/*.jpg"):
        with pytest.raises(DataError) as caught:
            plan(text)
        assert str(caught.value).startswith(f"input {text}: the {'pattern' if '*' in text else 'folder'} ")
        assert "known endings: .bmp, .gif, .jpeg, .jpg" in str(caught.value)


def test_picture_is_never_overwritten() -> None:
    touch("a.png", "photos/b.png", "photos/b.jpg")
    with pytest.raises(DataError, match=r"output a\.png: is itself an input picture"):
        plan("a.png", output=".")
    Path("link").symlink_to("photos")
    with pytest.raises(DataError, match="is itself an input picture"):
        plan("photos/b.png", output="link")
    # As two files they meet, so their results are b.jpg.png and b.png.png.
    assert plan("photos/b.png", "photos/b.jpg", output="photos") == {
        "photos/b.png": "b.png.png",
        "photos/b.jpg": "b.jpg.png",
    }


def test_output_that_is_the_input_folder() -> None:
    touch("photos/a.jpg", "photos/x/b.jpg")
    assert plan("photos", output="photos") == {"photos/a.jpg": "a.png", "photos/x/b.jpg": "x/b.png"}
    touch("photos/a.png")
    with pytest.raises(DataError, match=r"input photos: is the --output folder too and holds PNG files"):
        plan("photos", output="photos/x/..")
    # A pattern can leave the results out.
    assert plan("photos/*.jpg", output="photos") == {"photos/a.jpg": "a.png"}


@pytest.mark.parametrize("text", ["photos", "photos/**/*", "photos/*", "./photos/../photos"])
def test_results_of_an_earlier_run_below_the_input_are_no_inputs(text: str, caplog: pytest.LogCaptureFixture) -> None:
    touch("photos/a.jpg", "photos/b.png", "photos/x/c.jpg")
    first = plan_jobs([text], Path("photos/saliency"))
    assert len(first) == 3
    assert not caplog.records
    touch(*(str(job.target) for job in first))
    with caplog.at_level(logging.WARNING, "salience"):
        assert plan_jobs([text], Path("photos/saliency")) == first
    assert [record.getMessage() for record in caplog.records] == [
        "3 PNG files below photos/saliency are passed over as results of an earlier run"
    ]


def test_pictures_below_the_output_folder_are_inputs_where_they_are_asked_for() -> None:
    touch("out/photos/a.png", "out/photos/b.png")
    assert plan("out/photos") == {"out/photos/a.png": "a.png", "out/photos/b.png": "b.png"}
    assert plan("out/photos/*.png") == plan("out/photos")
    assert plan("out/photos/a.png") == {"out/photos/a.png": "a.png"}


def test_output_that_is_a_file_is_named() -> None:
    touch("a.jpg", "out")
    with pytest.raises(DataError, match="output out: is a file; expected a folder"):
        plan("a.jpg")
