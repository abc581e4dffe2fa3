"""`salience predict` of a video or a camera: one file in, one file out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import typer

from ..detector import Detector
from ..errors import SalienceError
from ..methods.cgd import ClampedDescentDetector
from ..objects import ObjectFinder
from ..video.camera import open_camera
from ..video.containers import SUFFIXES, is_video, open_file, require_library
from ..video.reading import Video
from ..video.running import Infer, VideoRun
from ..video.writing import WRITABLE, open_writer
from .folders import progress_bar

# Frames to expect where nothing says how many there are: enough to make all cores work.
MANY_FRAMES = 1000


@dataclass(frozen=True)
class VideoRequest:
    """A video to make.

    Attributes:
        source: a file, or the name of a camera.
        camera: whether it is a camera.
        seconds: when to stop a camera; None for Ctrl-C.
        output: the file to write.
    """

    source: str
    camera: bool
    seconds: float | None
    output: Path

    @contextmanager
    def open(self) -> Iterator[Video]:
        """The video that is asked for."""
        if self.camera:
            with open_camera(self.source, self.seconds) as video:
                yield video
        else:
            with open_file(Path(self.source)) as container:
                yield Video(container, self.source)


def choose_video(
    inputs: list[str], output: Path, *, camera: str | None, seconds: float | None, smooth: float
) -> VideoRequest | None:
    """The video that a command line asks for; None where it asks for pictures.

    Raises:
        SalienceError: it mixes videos with pictures, or names an output that no video can have.
        BackendUnavailableError: PyAV is not installed.
    """
    videos = [text for text in inputs if is_video(text) and not Path(text).is_dir()]
    if camera is None and seconds is not None:
        raise SalienceError("--seconds: is for --camera.")
    if camera is None and not videos:
        _refuse_options(output, smooth)
        return None
    if camera is not None and inputs:
        raise SalienceError(f"--camera {camera}: cannot be mixed with input {inputs[0]}.")
    if len(inputs) > 1:
        raise SalienceError(f"input {videos[0]}: is a video, which is predicted alone; give it as the only input.")
    source = videos[0] if camera is None else camera
    _check_output(source, output, camera=camera is not None)
    require_library()
    return VideoRequest(source, camera is not None, seconds, output)


def predict_video(request: VideoRequest, run: VideoRun) -> None:
    """Write the video, say what was done, and exit with 1 if anything was damaged or missing."""
    start = time.monotonic()
    with request.open() as source:
        if source.left_out:
            typer.echo(f"note: {source.left_out} streams without pictures and sound are left out", err=True)
        with open_writer(request.output, source, run.kind) as writer, progress_bar(source.frames, "frames") as done:
            run.run(source, writer, done)
    problems = source.problems()
    for problem in problems:
        typer.echo(f"error: {source.name}: {problem}", err=True)
    rate = writer.written / max(time.monotonic() - start, 1e-9)
    engine = f"{run.detector.backend}, {run.detector.precision}"
    typer.echo(f"{writer.written} frames written to {request.output}, {rate:.1f} frames/s ({engine})", err=True)
    if problems:
        raise typer.Exit(1)


def infer_frames(detector: Detector, finder: ObjectFinder | None) -> Infer:
    """The engine calls of a detector, with the options of `cgd` where it has any."""
    if finder is None or not isinstance(detector, ClampedDescentDetector):
        return detector.infer
    return partial(detector.infer, target=finder.target, preset=finder.preset)


def _refuse_options(output: Path, smooth: float) -> None:
    """Raise SalienceError where the inputs are pictures and the options ask for a video."""
    if smooth:
        raise SalienceError(f"--smooth {smooth}: is for videos, and the inputs are pictures.")
    if is_video(output) and not output.is_dir():
        raise SalienceError(
            f"--output {output}: is the name of a video, and the inputs are no single video; known endings: "
            f"{', '.join(SUFFIXES)}."
        )


def _check_output(source: str, output: Path, *, camera: bool) -> None:
    if output.suffix.lower() not in WRITABLE:
        avi = " AVI, which keeps no timestamps, is not written." if output.suffix.lower() == ".avi" else ""
        raise SalienceError(
            f"--output {output}: expected the name of a video for {source}, ending in {', '.join(WRITABLE)}.{avi}"
        )
    if output.is_dir():
        raise SalienceError(f"--output {output}: is a folder, expected the name of a video.")
    if not camera and output.exists() and output.samefile(source):
        raise SalienceError(f"--output {output}: is the input itself; choose another name.")
