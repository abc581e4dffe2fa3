import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from salience.runtime.errors import BackendUnavailableError
from salience.training.curves import app, plot_history, read_history

OLD = {"epoch": 0, "loss": 0.9, "scores": {"f_max": 0.5, "mae": 0.2}, "rate": 0.1, "seconds": 3.0}


def write_run(folder: Path, epochs: int) -> Path:
    folder.mkdir()
    records = [OLD | {"epoch": epoch, "loss": 1 / (1 + epoch)} for epoch in range(epochs)]
    (folder / "history.json").write_text(json.dumps(records))
    return folder


def test_runs_become_a_picture(tmp_path: Path) -> None:
    """A panel each for the loss, F and MAE; a run is a folder or its history."""
    pytest.importorskip("matplotlib")
    runs = [write_run(tmp_path / "long", 3), write_run(tmp_path / "short", 1) / "history.json"]
    plot_history(runs, tmp_path / "out" / "runs.png")
    with Image.open(tmp_path / "out" / "runs.png") as picture:
        assert picture.width > 3 * picture.height
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 2


def test_a_history_of_the_first_version_is_read(tmp_path: Path) -> None:
    (record,) = read_history(write_run(tmp_path / "run", 1))
    assert record.images_per_second == 0
    assert not record.stopped


@pytest.mark.parametrize(
    ("name", "content", "output", "message"),
    [
        ("nowhere", None, "a.png", "No such file"),
        ("history.json", "[", "a.png", "not the record of a run"),
        ("history.json", '[{"loss": 1}]', "a.png", "not the record of a run"),
        ("history.json", "[]", "a.png", "no epoch yet"),
        ("history.json", json.dumps([OLD]), "a.pdf", "ends in .png"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, name: str, content: str | None, output: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit) as ended:
        app([str(tmp_path / name), "--output", str(tmp_path / output)])
    assert ended.value.code == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


def test_without_matplotlib_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'salience\[evaluate\]'"):
        plot_history([write_run(tmp_path / "run", 1)], tmp_path / "a.png")
