"""Many pictures: each gives its map or its own failure, in bounded memory, and Ctrl-C ends it."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import Detector, EngineError, Prepared, SaliencyMap, load
from salience.runtime.cli.folders import share_cores
from salience.runtime.images import ImageSource
from salience.runtime.jobs import Job, plan_jobs
from salience.runtime.pipeline import run_jobs

BROKEN = {"04.jpg": b"text", "11.jpg": b"", "29.jpg": b"\xff\xd8\xff\xe0 cut"}


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Detector:
    return load(bundle, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, NDArray[np.uint8]]) -> Path:
    """Thirty pictures of many sizes, three of them broken."""
    folder = tmp_path_factory.mktemp("thirty")
    images = list(photos.values())
    for index in range(30):
        image = images[index % len(images)][index * 3 :: 2, index::2]
        Image.fromarray(image).save(folder / f"{index:02d}.jpg")
    for name, data in BROKEN.items():
        (folder / name).write_bytes(data)
    return folder


class Watched:
    """A detector that counts what is under way, and does as it is told."""

    def __init__(
        self,
        detector: Detector,
        *,
        infer: Callable[[Sequence[Prepared]], None] = lambda group: None,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self.detector, self.before_infer, self.before_finish = detector, infer, finish
        self.lock, self.alive, self.most = threading.Lock(), 0, 0
        self.batches: list[int] = []

    def count(self, change: int) -> None:
        with self.lock:
            self.alive += change
            self.most = max(self.most, self.alive)

    def prepare(self, image: ImageSource) -> Prepared:
        prepared = self.detector.prepare(image)
        self.count(1)
        return prepared

    def infer(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        self.batches.append(len(prepared))
        self.before_infer(prepared)
        return self.detector.infer(prepared)

    def finish(self, prepared: Prepared, values: NDArray[np.float32]) -> Any:
        self.before_finish()
        found = self.detector.finish(prepared, values)
        self.count(-1)
        return found


def run(detector: Any, jobs: Sequence[Job], **options: Any) -> dict[str, str]:
    """Failures: source's name -> message."""
    return {failure.job.source.name: failure.message for failure in run_jobs(detector, jobs, **options)}


def maps(output: Path) -> dict[str, NDArray[np.uint8]]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(output.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_broken_pictures_are_named_and_the_others_written(
    detector: Detector, folder: Path, tmp_path: Path, batch: int, workers: int
) -> None:
    done: list[int] = []
    jobs = plan_jobs([str(folder)], tmp_path)
    failures = run(detector, jobs, batch=batch, workers=workers, done=lambda: done.append(threading.get_ident()))
    assert failures.keys() == BROKEN.keys()
    assert all(name in message for name, message in failures.items())
    # Whatever the batches and threads, a map is the one that predict gives.
    found = maps(tmp_path)
    assert len(found) == 27
    for name, values in found.items():
        expected = detector.predict(folder / f"{Path(name).stem}.jpg").grey()
        assert np.abs(values.astype(int) - expected).max() <= 1  # rounding: batches are summed in another order
    assert done == [threading.get_ident()] * 30


def test_same_files_whatever_the_batches_and_threads(detector: Detector, folder: Path, tmp_path: Path) -> None:
    runs = []
    for name, options in {"a": {"batch": 4, "workers": 1}, "b": {"batch": 4, "workers": 5}}.items():
        run(detector, plan_jobs([str(folder)], tmp_path / name), kind="cutout", **options)
        runs.append(maps(tmp_path / name))
    first, second = runs
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


@pytest.mark.parametrize("kind", ["map", "mask", "cutout", "overlay"])
def test_every_kind_is_written(detector: Detector, photo_folder: Path, tmp_path: Path, kind: Any) -> None:
    source = photo_folder / "coffee.jpg"
    assert not run(detector, [Job(source, tmp_path / "coffee.png")], kind=kind, threshold=None)
    np.testing.assert_array_equal(maps(tmp_path)["coffee.png"], detector.predict(source).render(kind))


def test_threshold_reaches_the_mask(detector: Detector, photo_folder: Path, tmp_path: Path) -> None:
    source = photo_folder / "coffee.jpg"
    level = float(np.median(detector.predict(source).values))
    run(detector, [Job(source, tmp_path / "coffee.png")], kind="mask", threshold=level)
    assert maps(tmp_path)["coffee.png"].mean() == pytest.approx(127.5, abs=10)


def test_failing_batch_is_tried_one_by_one(detector: Detector, folder: Path, tmp_path: Path) -> None:
    poison = detector.prepare(folder / "07.jpg").image.shape

    def fail(group: Sequence[Prepared]) -> None:
        if any(prepared.image.shape == poison for prepared in group):
            raise EngineError("engine: out of memory.")

    watched = Watched(detector, infer=fail)
    jobs = [job for job in plan_jobs([str(folder)], tmp_path) if job.source.name not in BROKEN]
    failures = run(watched, jobs, batch=9)
    assert failures == {"07.jpg": "engine: out of memory."}
    assert len(maps(tmp_path)) == 26
    assert watched.batches == [9] + [1] * 9 + [9, 9]


def test_unforeseen_error_is_a_failure_of_its_own(detector: Detector, photo_folder: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("a bug")

    failures = run(Watched(detector, finish=fail), plan_jobs([str(photo_folder)], tmp_path), workers=1)
    assert failures == {"astronaut.jpg": "ZeroDivisionError: a bug"}
    assert len(maps(tmp_path)) == 3


def test_result_that_cannot_be_written_is_a_failure_of_its_own(
    detector: Detector, photo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "astronaut.png").mkdir()
    (tmp_path / "file").write_text("")
    source = photo_folder / "coffee.jpg"
    jobs = [*plan_jobs([str(photo_folder)], tmp_path), Job(source, tmp_path / "file" / "coffee.png")]
    found = run_jobs(detector, jobs)
    assert {failure.job.target: failure.message for failure in found} == {
        tmp_path / "astronaut.png": f"{tmp_path / 'astronaut.png'}: cannot be written (Is a directory).",
        tmp_path / "file" / "coffee.png": f"{tmp_path / 'file' / 'coffee.png'}: cannot be written (File exists).",
    }
    # The others are there, and nothing half written.
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "astronaut.png", "chelsea.png", "coffee.png", "file", "rocket.png",
    ]  # fmt: skip
    assert not list((tmp_path / "astronaut.png").iterdir())


def test_full_disk_leaves_no_file(
    detector: Detector, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    failures = run(detector, plan_jobs([str(photo_folder)], tmp_path))
    assert len(failures) == 4
    assert failures["coffee.jpg"] == f"{tmp_path / 'coffee.png'}: cannot be written (No space left on device)."
    assert not list(tmp_path.iterdir())


def test_no_jobs(detector: Detector) -> None:
    assert run_jobs(detector, []) == []


@pytest.mark.parametrize(("batch", "workers", "calls"), [(1, 1, 1), (4, 2, 1), (2, 2, 3)])
def test_pictures_in_memory_are_bounded(
    detector: Detector, photo_folder: Path, tmp_path: Path, batch: int, workers: int, calls: int
) -> None:
    # Writing is the slow part, so that everything before it runs ahead as far as it may.
    watched = Watched(detector, finish=lambda: time.sleep(0.005))
    source = photo_folder / "coffee.jpg"
    taken: list[int] = []

    def jobs() -> Iterator[Job]:
        for index in range(80):
            taken.append(index)
            yield Job(source, tmp_path / f"{index}.png")

    assert not run_jobs(watched, jobs(), batch=batch, workers=workers, calls=calls)  # type: ignore[arg-type]
    # Decoded ahead, in the batches, waiting to be written, and in each thread's hands.
    assert watched.most <= (workers + batch) + (calls + 2) * batch + (2 * workers + batch) + 2 * workers
    assert len(taken) == len(list(tmp_path.iterdir())) == 80


def test_as_many_engine_calls_run_at_once_as_asked_for(detector: Detector, folder: Path, tmp_path: Path) -> None:
    lock, running, most = threading.Lock(), 0, 0
    meeting = threading.Barrier(3)

    def infer(group: Sequence[Prepared]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.5)
        with lock:
            running -= 1

    failures = run(Watched(detector, infer=infer), plan_jobs([str(folder)], tmp_path), calls=3)
    assert most == 3
    assert failures.keys() == BROKEN.keys()
    assert len(list(tmp_path.iterdir())) == 30 - len(BROKEN)


@pytest.mark.parametrize(
    ("cores", "threads", "jobs", "expected"),
    [
        (2, None, 600, (1, 2)), (1, None, 600, (1, 1)), (16, None, 600, (4, 4)), (64, None, 600, (16, 4)),
        (16, None, 2, (4, 2)), (16, None, 1, (None, 1)), (16, None, 0, (None, 1)),
        (16, 8, 600, (8, 2)), (16, 16, 600, (16, 1)), (2, 4, 600, (4, 1)), (16, 2, 1, (2, 1)),
    ],
)  # fmt: skip
def test_calls_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int | None, jobs: int, expected: tuple[int | None, int]
) -> None:
    monkeypatch.setattr("salience.runtime.cli.folders.available_cores", lambda: cores)
    assert share_cores(threads, jobs) == expected


def test_large_pictures_close_a_batch(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salience.runtime.pipeline._BATCH_PIXELS", 10_000)
    for index, side in enumerate([50, 50, 200, 50, 50, 50, 50, 50]):
        Image.new("RGB", (side, side)).save(tmp_path / f"{index}.png")
    watched = Watched(detector)
    run(watched, plan_jobs([str(tmp_path)], tmp_path / "out"), batch=6)
    assert watched.batches == [3, 5]


@pytest.mark.parametrize("where", ["infer", "done"])
def test_interrupt_ends_the_run_at_once(detector: Detector, folder: Path, tmp_path: Path, where: str) -> None:
    calls: list[int] = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    watched = Watched(detector, infer=interrupt if where == "infer" else lambda group: None)
    options: dict[str, Any] = {"done": interrupt} if where == "done" else {}
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(watched, plan_jobs([str(folder)], tmp_path), **options)
    assert threading.active_count() == before
    # What was written by then is whole; the rest was not begun.
    assert len(maps(tmp_path)) < 20
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_source_that_vanishes_meanwhile_is_named(detector: Detector, photo_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photo_folder, tmp_path / "photos")
    jobs = plan_jobs([str(folder)], tmp_path / "out")
    (folder / "coffee.jpg").unlink()
    failures = run(detector, jobs)
    assert list(failures) == ["coffee.jpg"]
    assert "No such file" in failures["coffee.jpg"]


def halves(detector: Detector, output: Path) -> Callable[..., Iterator[tuple[Path, SaliencyMap]]]:
    """Two further maps of each job: half of it and a quarter, in folders of their own."""

    def extras(job: Job, prepared: Prepared, values: NDArray[np.float32]) -> Iterator[tuple[Path, SaliencyMap]]:
        for name, factor in (("half", np.float32(0.5)), ("quarter", np.float32(0.25))):
            yield output / name / job.target.name, detector.finish(prepared, values * factor)

    return extras


@pytest.mark.parametrize("batch", [1, 3])
def test_further_maps_are_of_their_job(
    detector: Detector, photo_folder: Path, tmp_path: Path, batch: int, photos: dict[str, NDArray[np.uint8]]
) -> None:
    done: list[int] = []
    jobs = plan_jobs([str(photo_folder)], tmp_path / "full")
    extras = halves(detector, tmp_path)
    assert not run(detector, jobs, batch=batch, extras=extras, done=lambda: done.append(1))
    assert len(done) == len(jobs) == len(photos)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "half", "quarter"]
    full = maps(tmp_path / "full")
    assert full.keys() == {f"{name}.png" for name in photos}
    for name, factor in (("half", 0.5), ("quarter", 0.25)):
        found = maps(tmp_path / name)
        assert found.keys() == full.keys()
        for file, values in found.items():
            # Each is rounded to a grey level by itself.
            np.testing.assert_allclose(values, full[file] * factor, rtol=0, atol=1)


def test_further_maps_are_of_the_same_kind(detector: Detector, photo_folder: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([str(photo_folder / "coffee.jpg")], tmp_path / "full")
    run(detector, jobs, kind="mask", threshold=0.0, extras=halves(detector, tmp_path))
    assert {(values == 255).all() for values in maps(tmp_path).values()} == {np.True_}
    assert len(list(tmp_path.rglob("*.png"))) == 3


def test_further_map_that_fails_takes_its_result_along_and_no_other(
    detector: Detector, photo_folder: Path, tmp_path: Path
) -> None:
    # A result says that its job is done; what is skipped next time must be complete.
    genuine = halves(detector, tmp_path)

    def extras(job: Job, prepared: Prepared, values: NDArray[np.float32]) -> Iterator[tuple[Path, SaliencyMap]]:
        yield next(genuine(job, prepared, values))
        if job.source.stem == "coffee":
            raise EngineError("engine: out of memory.")

    failures = run(detector, plan_jobs([str(photo_folder)], tmp_path / "full"), extras=extras)
    assert failures == {"coffee.jpg": "engine: out of memory."}
    assert len(maps(tmp_path / "half")) == 4
    assert "coffee.png" not in maps(tmp_path / "full")
    assert len(maps(tmp_path / "full")) == 3


def test_further_map_that_cannot_be_written_is_named(detector: Detector, photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "half" / "coffee.png").mkdir(parents=True)
    jobs = plan_jobs([str(photo_folder)], tmp_path / "full")
    failures = run(detector, jobs, extras=halves(detector, tmp_path))
    target = tmp_path / "half" / "coffee.png"
    assert failures == {"coffee.jpg": f"{target}: cannot be written (Is a directory)."}
    assert len(maps(tmp_path / "full")) == len(maps(tmp_path / "half")) == 3
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_no_further_maps_of_a_picture_that_failed(detector: Detector, folder: Path, tmp_path: Path) -> None:
    failures = run(detector, plan_jobs([str(folder)], tmp_path / "full"), batch=4, extras=halves(detector, tmp_path))
    assert failures.keys() == BROKEN.keys()
    assert len(maps(tmp_path / "half")) == len(maps(tmp_path / "quarter")) == 27
