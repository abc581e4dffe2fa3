"""A worker without Ray: units that are done again, and pictures that end their worker."""

import csv
import json
import shutil
import socket
from pathlib import Path

import pytest

from salience.runtime import ImageError, SalienceError
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.images import ImageSource
from salience.runtime.jobs import Job
from salience.runtime.manifest import MANIFEST_FILE
from salience.runtime.scale.attempts import Attempts
from salience.runtime.scale.cluster import Share, divide, joined
from salience.runtime.scale.run import write_failures
from salience.runtime.scale.settings import Settings
from salience.runtime.scale.state import State
from salience.runtime.scale.units import Failure, Pictures, RowGroup, Shard, Unit, is_whole
from salience.runtime.scale.worker import Done, Worker

from .samples import read_shard, write_shard, write_table


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Stub(Worker):
    """A worker whose maps are texts, and whom pictures of `deadly` content end."""

    def __init__(self, output: Path) -> None:
        self._state, self._fatal, self._engine = State(output, "stub"), None, "stub"
        self.begun: list[bytes] = []

    def _map(self, source: ImageSource) -> bytes:
        content = source.read_bytes() if isinstance(source, Path) else source
        assert isinstance(content, bytes)
        self.begun.append(content)
        if content == b"deadly":
            raise Killed
        if content == b"broken":
            raise ImageError("broken picture")
        if content == b"odd":
            raise ZeroDivisionError("odd picture")
        return b"map of " + content + b"\0\0\0\0IEND\xaeB`\x82"


def until_done(unit: Unit, output: Path) -> tuple[Done, int]:
    """A worker after the other, as Ray starts them; what the last one says, and how many there were."""
    for number in range(1, 20):
        try:
            (done,) = Stub(output)({"unit": [unit]})["done"]
        except Killed:
            continue
        return done, number
    raise AssertionError("no worker came to the end")


def pictures(folder: Path, contents: list[bytes]) -> Pictures:
    jobs = []
    for index, content in enumerate(contents):
        jobs.append(Job(folder / f"{index}.jpg", folder / "out" / f"{index}.png"))
        jobs[-1].source.write_bytes(content)
    return Pictures("chunk", tuple(jobs))


def test_each_picture_fails_for_itself(tmp_path: Path) -> None:
    unit = pictures(tmp_path, [b"a", b"broken", b"odd", b"b"])
    done, _ = until_done(unit, tmp_path / "out")
    assert done.report.written == 2
    assert [(f.source.name, f.message) for f in done.report.failures] == [
        ("1.jpg", "broken picture"), ("2.jpg", "ZeroDivisionError: odd picture"),
    ]  # fmt: skip
    assert [is_whole(job.target) for job in unit.jobs] == [True, False, False, True]


def test_only_pictures_without_a_whole_map_are_done(tmp_path: Path) -> None:
    unit = pictures(tmp_path, [b"a", b"b", b"c"])
    until_done(unit, tmp_path / "out")
    unit.jobs[0].target.unlink()
    unit.jobs[1].target.write_bytes(unit.jobs[1].target.read_bytes()[:-3])
    worker = Stub(tmp_path / "out")
    (done,) = worker({"unit": [unit]})["done"]
    assert worker.begun == [b"a", b"b"]
    assert done.report.written == 3
    assert all(is_whole(job.target) for job in unit.jobs)


def test_a_picture_that_ends_its_worker_is_given_up_and_the_others_are_not(tmp_path: Path) -> None:
    unit = pictures(tmp_path, [b"a", b"deadly", b"b"])
    done, workers = until_done(unit, tmp_path / "out")
    assert workers == done.attempts == 4
    assert done.report.written == 2
    ((failure),) = done.report.failures
    assert failure.source == unit.jobs[1].source
    assert "ended 2 times" in failure.message
    assert not list(State(tmp_path / "out", "").attempts.iterdir())


def test_a_shard_is_given_whole_or_not_at_all_when_its_worker_ends(tmp_path: Path) -> None:
    source = write_shard(tmp_path / "s.tar", [("1.jpg", b"a"), ("2.jpg", b"deadly"), ("3.jpg", b"broken")])
    unit = Shard("s.tar", source, tmp_path / "out" / "s.tar", tmp_path / "record.json", None)
    with pytest.raises(Killed):
        Stub(tmp_path / "out")({"unit": [unit]})
    assert not unit.target.exists()
    done, _ = until_done(unit, tmp_path / "out")
    assert [name for name, _ in read_shard(unit.target)] == ["1.png"]
    assert [failure.key for failure in done.report.failures] == ["2", "3"]
    assert unit.earlier() == done.report
    unit.target.write_bytes(unit.target.read_bytes()[:-1])
    assert unit.earlier() is None


def test_a_row_group_has_a_row_for_every_row(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    source = write_table(tmp_path / "t.parquet", rows=9, image=[b"a", b"broken", None, b"deadly", b"b"])
    unit = RowGroup("t", source, tmp_path / "part.parquet", 0, "image", 100, 5)
    done, _ = until_done(unit, tmp_path / "out")
    assert done.report.written == 2
    assert [failure.key for failure in done.report.failures] == ["101", "102", "103"]
    assert unit.earlier() == done.report


def test_a_unit_whose_worker_always_ends_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "unit.json"
    for _ in range(10):
        Attempts(path).check(tmp_path)
    with pytest.raises(SalienceError, match="ended 10 times"):
        Attempts(path).check(tmp_path)


def test_a_worker_that_cannot_open_the_bundle_says_why(tmp_path: Path) -> None:
    worker = Worker(Settings(tmp_path / "missing"), State(tmp_path / "out", ""))
    (done,) = worker({"unit": [pictures(tmp_path, [b"a"])]})["done"]
    assert done.fatal is not None
    assert "missing" in done.fatal


@pytest.mark.parametrize(("method", "command"), [("gicd", "salience cosaliency"), ("lps", "salience promote")])
def test_what_needs_more_than_a_picture_is_sent_elsewhere(tmp_path: Path, method: str, command: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    manifest = json.loads((bundle / MANIFEST_FILE).read_bytes())
    (bundle / MANIFEST_FILE).write_text(json.dumps(manifest | {"method": method}))
    with pytest.raises(SalienceError, match=command):
        Settings(bundle).check()


def test_options_of_cgd_are_refused_by_others() -> None:
    with pytest.raises(SalienceError, match="expected cgd for --class"):
        Settings(DEFAULT_BUNDLE, target="cat").check()


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        ([{"CPU": 2.0}], None, 0, Share(2, 1, 0)),
        ([{"CPU": 16.0}], None, 0, Share(4, 4, 0)),
        ([{"CPU": 16.0}], 2, 0, Share(2, 8, 0)),
        ([{"CPU": 3.0}] * 3, 4, 0, Share(4, 1, 0)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}], None, 0.5, Share(4, 2, 0.5)),
    ],
)
def test_cores_and_gpus_are_shared_out(
    nodes: list[dict[str, float]], workers: int | None, gpus: float, expected: Share
) -> None:
    assert divide(list(nodes), workers, gpus) == expected


def test_a_cluster_that_does_not_answer_is_one_sentence() -> None:
    pytest.importorskip("ray")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SalienceError, match=f"--ray {address}: no cluster"), joined(address):
            pass


def test_threads_that_are_given_stay() -> None:
    assert divide([{"CPU": 16.0}], None, 0, 8) == Share(2, 8, 0)
    assert divide([{"CPU": 16.0}], 1, 0, 3) == Share(1, 3, 0)


@pytest.mark.parametrize(
    ("gpus", "threads", "room"), [(0, None, "room for 2"), (0.5, None, "room for 0"), (0, 2, "room for 1")]
)
def test_more_workers_than_there_is_room_for_are_refused(gpus: float, threads: int | None, room: str) -> None:
    with pytest.raises(SalienceError, match=room):
        divide([{"CPU": 2.0}], 3, gpus, threads)


def test_the_table_of_failures_holds_any_text(tmp_path: Path) -> None:
    write_failures(tmp_path / "f.csv", [Failure(Path("a\udcff,b"), 'k"\n', "why")])
    with (tmp_path / "f.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["input", "key", "error"], ["a\\udcff,b", 'k"\n', "why"]]
