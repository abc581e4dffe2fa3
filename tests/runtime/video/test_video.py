"""`salience predict` of videos: frames, times, sound, and what happens to broken ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

av = pytest.importorskip("av")

from salience.runtime import load  # noqa: E402
from salience.runtime.cli import app  # noqa: E402
from salience.runtime.detector import Detector, Prepared  # noqa: E402
from salience.runtime.errors import EngineError  # noqa: E402
from salience.runtime.saliency import KINDS  # noqa: E402
from salience.runtime.video import camera as cameras  # noqa: E402
from salience.runtime.video import reading  # noqa: E402
from salience.runtime.video.containers import open_file  # noqa: E402
from salience.runtime.video.reading import Video  # noqa: E402
from salience.runtime.video.running import VideoRun  # noqa: E402
from salience.runtime.video.writing import open_writer  # noqa: E402
from tests.runtime.video.clips import (  # noqa: E402
    STEP,
    TIME_BASE,
    cut_short,
    damage,
    read_clip,
    scene,
    turn_header,
    write_clip,
)

Cli = Callable[..., Result]


@pytest.fixture
def cli(bundle: Path) -> Cli:
    """`salience predict` on the small bundle; no error may escape it."""

    def run(*arguments: object, code: int = 0) -> Result:
        options = [] if "--bundle" in arguments else ["--bundle", bundle]
        result = CliRunner().invoke(app, ["predict", *map(str, arguments), *map(str, options)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds at 25 frames a second with a tone."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_clip(path, [scene(index) for index in range(250)], faststart=True)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Twelve frames with a tone."""
    return write_clip(tmp_path / "short.mp4", [scene(20 * index) for index in range(12)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def distance(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Mean difference in grey levels."""
    assert found.shape == wanted.shape
    return float(np.abs(found.astype(float) - wanted.astype(float)).mean())


def test_ten_seconds_keep_frames_times_length_and_sound(cli: Cli, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    result = cli(clip, "--output", output, "--kind", "overlay")
    before, after = read_clip(clip), read_clip(output)
    assert len(after.images) == 250
    assert after.times_s == before.times_s
    assert after.length_s == before.length_s == 10.0
    assert after.codecs == ("h264", "aac")
    assert before.samples is not None
    assert after.samples is not None
    assert np.array_equal(after.samples, before.samples)
    assert np.abs(after.samples).max() > 0.1
    assert result.stderr.startswith(f"250 frames written to {output}, ")
    assert names(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_the_rendered_maps_in_order(bundle: Path, short: Path, tmp_path: Path, kind: Any) -> None:
    """Three calls at once, two frames each. Within 4 grey levels in the mean, which crf 18 with chroma at half the
    resolution may cost on frames as small as these; another frame's overlay is further away."""
    detector = load(bundle, threads=1)
    found_maps = [detector.predict(image) for image in read_clip(short).images]
    threshold = float(np.median(found_maps[0].values)) if kind == "mask" else None
    output = tmp_path / "out.mp4"
    with open_file(short) as container:
        source = Video(container, "short")
        with open_writer(output, source, kind) as writer:
            VideoRun(detector, detector.infer, kind, threshold, batch=2, calls=3).run(source, writer)
    wanted = [on_white(found.render(kind, threshold=threshold)) for found in found_maps]
    errors = [[distance(mine, other) for other in wanted] for mine in read_clip(output).images]
    assert len(errors) == 12
    assert max(errors[index][index] for index in range(12)) < 4
    assert kind != "overlay" or np.argmin(errors, axis=1).tolist() == list(range(12))


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey, RGB or RGBA as RGB."""
    if pixels.ndim == 2:
        return np.dstack([pixels] * 3)
    opacity = pixels[..., 3:] / 255.0 if pixels.shape[2] == 4 else 1.0
    laid: NDArray[np.uint8] = np.rint(pixels[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return laid


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_uneven_times_are_kept(cli: Cli, tmp_path: Path, suffix: str) -> None:
    """Matroska counts in milliseconds, so its times may be half of one off."""
    times = [0, 512, 1500, 1600, 9000, 9001, 20000, 33333]
    source = write_clip(
        tmp_path / "in.mp4", [scene(index * 30) for index in range(8)], times=times, sound=None, options={"bf": "0"}
    )
    output = tmp_path / f"out{suffix}"
    cli(source, "--output", output)
    found = read_clip(output)
    tolerance = Fraction(1, 2000) if suffix == ".mkv" else 0
    assert all(abs(a - b * TIME_BASE) <= tolerance for a, b in zip(found.times_s, times, strict=True))
    assert found.length_s == pytest.approx(read_clip(source).length_s, abs=1e-3)
    assert found.codecs == ("h264",)


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_turned_frames_become_upright(
    bundle: Path, short: Path, tmp_path: Path, matrix: tuple[int, int, int, int], upright: Callable[..., Any]
) -> None:
    stored = read_clip(short).images
    turn_header(short, matrix)
    with open_file(short) as container:
        source = Video(container, "short")
        frames = [event for event in source.events() if isinstance(event, reading.Frame)]
    wanted = [upright(image) for image in stored]
    assert source.shape == wanted[0].shape[:2]
    # The decoder is the same; what is left is the matrix that the file names, which the reader of these tests ignores.
    assert max(distance(frame.image, image) for frame, image in zip(frames, wanted, strict=True)) < 3


def test_a_turned_video_is_written_upright(cli: Cli, short: Path, tmp_path: Path) -> None:
    turn_header(short, (0, 1, -1, 0))
    assert read_clip(short).turned
    cli(short, "--output", tmp_path / "out.mp4")
    found = read_clip(tmp_path / "out.mp4")
    assert found.images[0].shape == (160, 120, 3)
    assert not found.turned


@pytest.mark.parametrize(("suffix", "shape"), [(".mp4", (122, 162, 3)), (".webm", (121, 161, 3))])
def test_odd_sizes_lose_nothing(cli: Cli, tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    images = [scene(index, 121, 161) for index in range(3)]
    source = write_clip(tmp_path / "in.mkv", images, sound=None, codec="ffv1", pixel_format="yuv444p")
    cli(source, "--output", tmp_path / f"out{suffix}", "--kind", "map")
    assert read_clip(tmp_path / f"out{suffix}").images[0].shape == shape


def test_sound_that_webm_cannot_hold_becomes_opus(cli: Cli, short: Path, tmp_path: Path) -> None:
    cli(short, "--output", tmp_path / "out.webm")
    found = read_clip(tmp_path / "out.webm")
    assert found.codecs == ("vp9", "opus")
    assert found.samples is not None
    # 12 frames are .48 s; Opus works in packets of 20 ms.
    assert found.samples.shape[1] == pytest.approx(0.48 * 48000, abs=1920)
    loudest = np.argmax(np.abs(np.fft.rfft(found.samples[0]))) * 48000 / found.samples.shape[1]
    assert loudest == pytest.approx(440, abs=3)


@pytest.mark.parametrize("suffix", [".webm", ".mkv", ".mov"])
def test_a_cutout_is_transparent_where_the_container_can_be(
    cli: Cli, bundle: Path, short: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    cli(short, "--output", output, "--kind", "cutout")
    detector = load(bundle, threads=1)
    wanted = [detector.predict(image).cutout() for image in read_clip(short).images]
    found = read_clip(output, alpha=True).images
    # Alpha is coded with loss in VP9.
    assert max(distance(a[..., 3], b[..., 3]) for a, b in zip(found, wanted, strict=True)) < 4
    assert np.ptp(found[0][..., 3].astype(int)) > 20


def test_matrix_and_range_are_read_and_kept(short: Path, tmp_path: Path) -> None:
    images = [scene(0)] * 2
    for matrix, full in ((1, 1), (5, 1), (6, 2), (9, 1)):
        source = write_clip(
            tmp_path / f"{matrix}.mkv", images, sound=None, codec="ffv1", pixel_format="yuv444p", colour=(matrix, full)
        )
        with open_file(source) as container:
            video = Video(container, "video")
            frame = next(event for event in video.events() if isinstance(event, reading.Frame))
        # The way to 8-bit YUV of limited range and back.
        assert distance(frame.image, images[0]) < 1
        assert video.layout.matrix == matrix


@pytest.mark.parametrize("matrix", [1, 5])
def test_the_output_names_the_matrix_that_it_is_made_with(cli: Cli, tmp_path: Path, matrix: int) -> None:
    source = write_clip(tmp_path / "in.mp4", [scene(0)] * 2, sound=None, colour=(matrix, 1))
    cli(source, "--output", tmp_path / "out.mp4", "--kind", "overlay")
    assert read_clip(tmp_path / "out.mp4").colour == (matrix, 1)


def test_without_an_encoder_of_h264_mpeg4_does(
    cli: Cli, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "codecs_available", set())
    cli(short, "--output", tmp_path / "out.mp4", "--kind", "overlay")
    before, after = read_clip(short), read_clip(tmp_path / "out.mp4")
    assert after.codecs == ("mpeg4", "aac")
    assert after.times_s == before.times_s
    assert after.length_s == before.length_s


def test_a_file_that_ends_early_gives_what_was_there(cli: Cli, clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes())
    cut_short(broken, 0.5)
    result = cli(broken, "--output", tmp_path / "out.mp4", code=1)
    assert f"error: {broken}: ends at " in result.stderr
    assert "of 10.00 s" in result.stderr
    assert 50 < len(read_clip(tmp_path / "out.mp4").images) < 200


def test_damaged_frames_are_named_and_the_rest_goes_on(cli: Cli, tmp_path: Path) -> None:
    images = [scene(index) for index in range(250)]
    broken = write_clip(tmp_path / "broken.mp4", images, sound=None, faststart=True)
    damage(broken, 0.5, 2000)
    result = cli(broken, "--output", tmp_path / "out.mp4", code=1)
    found = read_clip(tmp_path / "out.mp4")
    assert "cannot be decoded and is left out" in result.stderr
    assert 200 < len(found.images) < 250
    assert found.times_s[-1] == Fraction(249, 25)


@pytest.mark.parametrize("content", [b"no video at all" * 50, b"#EXTM3U\n#EXTINF:10,\nother.mp4\n", b""])
def test_what_is_no_video_is_refused(cli: Cli, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(content)
    result = cli(source, "--output", tmp_path / "out.mp4", code=1)
    assert result.stderr.startswith(f"error: video {source}: cannot be read")
    assert names(tmp_path) == ["in.mp4"]


def test_a_file_without_its_index_is_refused(cli: Cli, short: Path, tmp_path: Path) -> None:
    cut_short(short, 0.5)
    cli(short, "--output", tmp_path / "out.mp4", code=1)
    assert names(tmp_path) == ["short.mp4"]


def test_frames_that_are_too_large_are_refused(
    cli: Cli, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 160 * 120 - 1)
    result = cli(short, "--output", tmp_path / "out.mp4", code=1)
    assert "frames of 160 x 120" in result.stderr


class Failing:
    """Engine calls that fail from one on."""

    def __init__(self, detector: Detector, good: int) -> None:
        self.detector, self.good = detector, good

    def __call__(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        self.good -= 1
        if self.good < 0:
            raise EngineError("engine: no more.")
        return self.detector.infer(prepared)


def run_failing(bundle: Path, source_path: Path, output: Path, good: int) -> list[str]:
    detector = load(bundle, threads=1)
    with open_file(source_path) as container:
        source = Video(container, "short")
        with open_writer(output, source, "map") as writer:
            VideoRun(detector, Failing(detector, good)).run(source, writer)
    return source.problems()


def test_an_engine_that_fails_leaves_the_frames_before(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (problem,) = run_failing(bundle, clip, tmp_path / "out.mp4", 100)
    found = len(read_clip(tmp_path / "out.mp4").images)
    assert problem == f"stops after {found} frames: engine: no more."
    assert 90 <= found <= 100


def test_an_engine_that_fails_at_once_leaves_nothing(bundle: Path, short: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no more"):
        run_failing(bundle, short, tmp_path / "out.mp4", 0)
    assert names(tmp_path) == ["short.mp4"]


def test_an_interrupt_leaves_the_old_file(bundle: Path, clip: Path, tmp_path: Path, repository: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"old")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from salience.runtime.cli import main; main()"
    )
    arguments: list[str | Path] = ["predict", clip, "--output", output, "--bundle", bundle]
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(names(tmp_path)) == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(names(tmp_path)) == 2
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert names(tmp_path) == ["out.mp4"]
    assert output.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.mp4"], "expected the name of a video for in.mp4"),
        (["in.mp4", "--output", "out.avi"], "AVI, which keeps no timestamps"),
        (["in.mp4", "b.mp4", "--output", "out.mp4"], "predicted alone"),
        (["a.png", "in.mp4", "--output", "out.mp4"], "predicted alone"),
        (["a.png", "--output", "out.mp4"], "the inputs are no single video"),
        (["-", "--output", "out.mp4"], "the inputs are no single video"),
        (["a.png", "--smooth", "0.5"], "is for videos"),
        (["a.png", "--seconds", "1"], "is for --camera"),
        (["a.png", "--camera", "0", "--output", "out.mp4"], "cannot be mixed"),
        (["in.mp4", "--output", "out.mp4", "--top", "3"], "--top: is for pictures"),
        (["in.mp4", "--output", "out.mp4", "--skip-existing"], "--skip-existing: is for pictures"),
        (["in.mp4", "--output", "out.mp4"], "no such file"),
        (["--camera", "977", "--output", "out.mp4"], "camera 977"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    result = cli(*arguments, code=1)
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert names(tmp_path) == []


def test_a_video_does_not_take_the_place_of_its_input(cli: Cli, short: Path) -> None:
    before = short.read_bytes()
    assert "is the input itself" in cli(short, "--output", short, code=1).stderr
    assert short.read_bytes() == before


def test_no_input_is_refused(cli: Cli) -> None:
    assert "--camera" in cli(code=2).stderr


def test_a_missing_library_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'salience[video]'" in cli("clip.mp4", "--output", "out.mp4", code=1).stderr


def test_a_camera_is_recorded_from_time_zero(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a camera, a pattern whose times start at 100 s."""
    pattern = "testsrc2=size=160x120:rate=25,setpts=PTS+100/TB"
    monkeypatch.setattr(cameras, "camera_device", lambda name: ("lavfi", pattern))
    cli("--camera", "0", "--seconds", "0.4", "--output", tmp_path / "out.mp4")
    assert read_clip(tmp_path / "out.mp4").times_s == [Fraction(index, 25) for index in range(10)]


def test_an_interrupt_ends_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "camera_device", lambda name: ("lavfi", "testsrc2=size=160x120:rate=25"))
    before = signal.getsignal(signal.SIGINT)
    with cameras.open_camera("0", None) as video:
        events = video.events()
        next(events)
        signal.raise_signal(signal.SIGINT)
        assert list(events) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_cgd_finds_a_class_in_a_video(cli: Cli, bundle_of: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    source = write_clip(tmp_path / "in.mp4", [scene(0), scene(100)], times=[0, STEP])
    output = tmp_path / "out.mp4"
    options = ["--class", "dog", "--set", "iterations=2"]
    cli(source, "--output", output, "--bundle", bundle_of("cgd"), *options)
    assert len(read_clip(output).images) == 2


def test_smoothing_takes_flicker_from_a_noisy_still(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    still = scene(120).astype(float)
    images = [np.clip(still + random.normal(0, 25, still.shape), 0, 255).astype(np.uint8) for _ in range(20)]
    source = write_clip(tmp_path / "in.mp4", images, sound=None, options={"crf": "5"})
    for weight in (0, 0.8):
        cli(source, "--output", tmp_path / f"{weight}.mp4", "--smooth", weight)
    plain, steady = (flicker(read_clip(tmp_path / f"{weight}.mp4").images) for weight in (0, 0.8))
    assert plain > 0.5
    # Independent noise would fall to (1 - w) / sqrt(1 - w^2) * sqrt(2 (1 - w)) / sqrt(2) = .15; coding adds its own.
    assert steady < 0.6 * plain


def flicker(images: list[NDArray[np.uint8]]) -> float:
    """Mean change from frame to frame, in grey levels, of the second half."""
    values = np.array(images[len(images) // 2 :], dtype=float)
    return float(np.abs(np.diff(values, axis=0)).mean())
