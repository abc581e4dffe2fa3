"""`salience batch` on a cluster of two workers: one result of every input, whatever happens on the way."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from salience.runtime import Detector
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.cli.batch import batch
from salience.runtime.scale.plan import make_plan
from salience.runtime.scale.run import FAILURES_FILE, run_batch
from salience.runtime.scale.settings import Settings
from salience.runtime.scale.units import is_whole

from .samples import BROKEN, is_map_of, jpegs, read_shard, read_table, write_shard, write_table

# Ray warns of its own deprecated parts.
pytestmark = pytest.mark.filterwarnings("ignore")
app = typer.Typer()
app.command()(batch)
Command = Callable[..., Result]


@pytest.fixture
def command(cluster: Any) -> Command:
    """Run `salience batch` in this process, on its cluster."""

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    return run


def failures(output: Path) -> list[tuple[str, str]]:
    """Input's name and key of each row of the table."""
    with (output / FAILURES_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["error"] for row in rows)
    return [(Path(row["input"]).name, row["key"]) for row in rows]


def write_folder(folder: Path, contents: list[bytes]) -> list[Path]:
    paths = []
    for index, content in enumerate(contents):
        paths.append(folder / f"{index % 3}" / f"{index:03d}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(content)
    return paths


def test_a_folder(
    command: Command, detector: Detector, tmp_path: Path, photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    source, output = tmp_path / "in", tmp_path / "in" / "out"
    contents = [*jpegs(photos, 10), BROKEN]
    paths = write_folder(source, contents)
    result = command(source, output, "--kind", "cutout", "--workers", 2, code=1)
    assert "10 of 11 written" in result.stderr.splitlines()[-1]
    assert "2 workers" in result.stderr.splitlines()[-1]
    assert result.stdout == ""
    targets = [output / path.relative_to(source).with_suffix(".png") for path in paths]
    assert sorted(output.rglob("*.png")) == sorted(targets[:-1])
    for path, target in zip(paths[:-1], targets, strict=False):
        assert is_map_of(detector, target, path, "cutout"), path
    assert failures(output) == [("010.jpg", "")]

    times = {target: target.stat().st_mtime_ns for target in targets[2:-1]}
    targets[0].unlink()
    targets[1].write_bytes(targets[1].read_bytes()[:-20])
    result = command(source, output, "--kind", "cutout", code=1)
    assert "10 of 11 written" in result.stderr.splitlines()[-1]
    assert "8 of them by an earlier run" in result.stderr.splitlines()[-1]
    assert {target: target.stat().st_mtime_ns for target in times} == times
    assert all(is_map_of(detector, targets[index], paths[index], "cutout") for index in (0, 1))
    assert failures(output) == [("010.jpg", "")]
    result = command(source, output, "--kind", "map", code=1)
    assert "other options" in result.stderr


def test_shards(command: Command, detector: Detector, tmp_path: Path, photos: Mapping[str, NDArray[np.uint8]]) -> None:
    contents = jpegs(photos, 6)
    source, output = tmp_path / "in", tmp_path / "out"
    write_shard(source / "a.tar", [(f"x/{index}.jpg", content) for index, content in enumerate(contents[:3])])
    members = [(f"{index}.jpg", content) for index, content in enumerate(contents[3:])]
    write_shard(source / "deep" / "b.tar", [*members, ("broken.jpg", BROKEN), ("../evil.jpg", contents[0])])
    for _ in range(2):
        result = command(source, output, "--workers", 2, code=1)
        assert "6 of 8 written" in result.stderr.splitlines()[-1]
        assert failures(output) == [("b.tar", "../evil"), ("b.tar", "broken")]
        (output / FAILURES_FILE).unlink()
    assert "6 of them by an earlier run" in result.stderr.splitlines()[-1]
    first, second = read_shard(output / "a.tar"), read_shard(output / "deep" / "b.tar")
    assert [name for name, _ in first] == ["x/0.png", "x/1.png", "x/2.png"]
    assert [name for name, _ in second] == ["0.png", "1.png", "2.png"]
    for (_, png), content in zip([*first, *second], contents, strict=True):
        assert is_map_of(detector, png, content)


def test_tables_go_on_where_they_were_left(
    command: Command, detector: Detector, tmp_path: Path, photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    contents = [*jpegs(photos, 7), BROKEN]
    source, output = tmp_path / "t.parquet", tmp_path / "out"
    write_table(source, rows=3, image=[{"bytes": content, "path": None} for content in contents])
    # A part that an earlier run has left; its maps are told from others.
    make_plan(source, output, None).units[0].run(lambda key, picture: f"earlier {key}".encode())
    result = command(source, output, "--workers", 2, code=1)
    assert "7 of 8 written" in result.stderr.splitlines()[-1]
    rows = read_table(output / "t.parquet")
    assert [row["row"] for row in rows] == list(range(8))
    assert [row["saliency"] for row in rows[:3]] == [b"earlier 0", b"earlier 1", b"earlier 2"]
    for row, content in zip(rows[3:7], contents[3:], strict=False):
        assert is_map_of(detector, row["saliency"], content)
        assert row["error"] is None
    assert rows[7]["saliency"] is None
    assert "not a picture" in rows[7]["error"]
    assert failures(output) == [("t.parquet", "7")]
    assert not list(output.rglob("0*.parquet"))
    result = command(source, output, code=1)
    assert "7 of them by an earlier run" in result.stderr.splitlines()[-1]
    assert failures(output) == [("t.parquet", "7")]


def worker_processes() -> list[int]:
    psutil: Any = pytest.importorskip("psutil")
    ours = psutil.Process().children(recursive=True)
    return [process.pid for process in ours if any("MapBatches(Worker)" in word for word in process.cmdline())]


def kill_one(output: Path, killed: list[int], maps: list[int]) -> None:
    """Once there are some maps."""
    until = time.monotonic() + 100
    while time.monotonic() < until:
        found = len(list(output.rglob("*.png")))
        if found >= 5:
            killed += worker_processes()[:1]
            os.kill(killed[0], signal.SIGKILL)
            maps.append(found)
            return
        time.sleep(0.02)


def test_a_worker_that_is_killed_loses_nothing(
    cluster: Any, detector: Detector, tmp_path: Path, photos: Mapping[str, NDArray[np.uint8]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    worker_processes()  # else a missing psutil would skip in the thread alone
    source, output = tmp_path / "in", tmp_path / "out"
    paths = write_folder(source, jpegs(photos, 100))
    killed: list[int] = []
    maps: list[int] = []
    killer = threading.Thread(target=kill_one, args=(output, killed, maps))
    killer.start()
    outcome = run_batch(source, output, Settings(DEFAULT_BUNDLE), workers=2)
    killer.join()
    assert len(killed) == 1
    assert maps[0] < 80, "killed too late to prove anything"
    assert "its worker died" in caplog.text
    assert (outcome.written, outcome.earlier, outcome.failures) == (100, 0, ())
    targets = [output / path.relative_to(source).with_suffix(".png") for path in paths]
    assert sorted(path for path in output.rglob("*.png") if not path.name.startswith(".")) == sorted(targets)
    assert all(is_whole(target) for target in targets)
    for index in range(0, 100, 7):
        assert is_map_of(detector, targets[index], paths[index])


def test_a_bundle_that_does_not_open_is_one_sentence(
    command: Command, tmp_path: Path, photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    write_folder(tmp_path / "in", jpegs(photos, 3))
    result = command(tmp_path / "in", tmp_path / "out", "--backend", "tensorrt", code=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "tensorrt" in line.lower()


def test_without_ray_the_message_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    write_folder(tmp_path / "in", jpegs(photos, 1))
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(app, [str(tmp_path / "in"), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "pip install 'salience[ray]'" in result.stderr


def test_a_device_that_the_workers_do_not_have_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "in"), str(tmp_path / "out"), "--device", "cuda"])
    assert result.exit_code == 1
    assert "--device cuda: contradicts --gpus-per-worker 0" in result.stderr


@pytest.mark.slow
def test_a_cluster_of_its_own_says_nothing_of_itself(
    repository: Path, tmp_path: Path, photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    pytest.importorskip("ray")
    write_folder(tmp_path / "in", jpegs(photos, 4))
    code = "import typer; from salience.runtime.cli.batch import batch; typer.run(batch)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "in", tmp_path / "out"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(repository / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("4 of 4 written")
