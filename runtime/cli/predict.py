"""`salience predict`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..commands import parse_pairs, report_errors
from ..detector import Detector, open_detector
from ..errors import SalienceError
from ..load_options import LoadOptions
from ..low_level import PRESETS, Preset
from ..methods.cgd import ClampedDescentDetector, ObjectMap
from ..objects import ObjectFinder, choose_preset
from ..option_groups import expand_options
from ..png_writer import encode_png
from ..saliency import Kind
from ..video.running import VideoRun
from .folders import check_threshold, pending_jobs, share_cores, write_all
from .options import (
    BundleOption,
    ClassOption,
    ParameterOption,
    PresetOption,
    ThresholdOption,
)
from .video import MANY_FRAMES, choose_video, infer_frames, predict_video

STDIN_LIMIT_BYTES = 1 << 30
_OUTPUT_HELP = "Folder for the results, PNG files; of a video: the file, .mp4, .m4v, .mov, .mkv or .webm."
_KIND_HELP = "What to write. Videos: a cutout is transparent in .mov, .mkv and .webm, else laid on white."
_SMOOTH_HELP = "Videos: weight W of the maps before: s = W * s + (1 - W) * map, anew at each cut. 0: none."


@report_errors
@expand_options
def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, patterns; '-' reads one picture from stdin. Or one video, alone."),
    ] = None,
    bundle: BundleOption = None,
    output: Annotated[Path, typer.Option(help=_OUTPUT_HELP)] = Path("saliency"),
    kind: Annotated[Kind, typer.Option(help=_KIND_HELP)] = "map",
    threshold: ThresholdOption = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Pictures per engine call.")] = 1,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave results that are there.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that decode, and that write.")] = 2,
    target: ClassOption = None,
    preset: PresetOption = "default",
    parameter: ParameterOption = None,
    top: Annotated[int, typer.Option(min=0, help="cgd: print so many of the classes seen in each picture.")] = 0,
    smooth: Annotated[float, typer.Option(min=0.0, max=0.99, help=_SMOOTH_HELP)] = 0.0,
    camera: Annotated[str | None, typer.Option(help="In place of inputs: a camera's number or name.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="How long to record a camera. [until Ctrl-C]")] = None,
    *,
    options: LoadOptions,
) -> None:
    """Write the saliency map of every picture; exit code 1 if any gave none.

    A video becomes one video, with the sound and the times of its frames; subtitles are left out. Of one that is
    damaged or ends early, all that can be read is written under the final name, and the exit code is 1.
    """
    inputs = inputs or []
    if not inputs and camera is None:
        raise typer.BadParameter("name pictures, folders or a video, or give --camera.", param_hint="INPUTS")
    check_threshold(kind, threshold)
    video = choose_video(inputs, output, camera=camera, seconds=seconds, smooth=smooth)
    from_stdin = inputs == ["-"]
    _check_mixture(inputs, top, from_stdin=from_stdin, video=bool(video), skip_existing=skip_existing)
    jobs, skipped = ([], 0) if from_stdin or video else pending_jobs(inputs, output, skip_existing=skip_existing)
    threads, calls = share_cores(options.threads, MANY_FRAMES if video else len(jobs))
    detector = open_detector(bundle, replace(options, threads=threads))
    detector.require_standalone()
    chosen = choose_preset(preset, parse_pairs(parameter, "--set"))
    finder = _finder(detector, target, chosen, top, given=bool(parameter))
    calls = 1 if detector.on_gpu else calls
    if video:
        infer = infer_frames(detector, finder)
        predict_video(video, VideoRun(detector, infer, kind, threshold, smooth, batch, calls, workers))
        return
    if from_stdin:
        _predict_stdin(detector, finder, kind, threshold)
        return
    write_all(
        finder or detector,
        jobs,
        output=output,
        skipped=skipped,
        kind=kind,
        threshold=threshold,
        batch=batch,
        workers=workers,
        calls=calls,
    )


def _check_mixture(inputs: list[str], top: int, *, from_stdin: bool, video: bool, skip_existing: bool) -> None:
    """Raise SalienceError for inputs and options that do not go together."""
    if "-" in inputs and not from_stdin:
        raise SalienceError("input '-': reads one picture from stdin and cannot be mixed with other inputs.")
    if from_stdin and top:
        raise SalienceError("--top: cannot be used with input '-', whose result is all that standard output may hold.")
    if video and (top or skip_existing):
        raise SalienceError(f"{'--top' if top else '--skip-existing'}: is for pictures, and the input is a video.")


def _finder(detector: Detector, target: str | None, preset: Preset, top: int, *, given: bool) -> ObjectFinder | None:
    """The detector with the options of `cgd`; None for another method, which must be given none of them.

    `given` says that parameters were, which may be those of the preset.
    """
    if not isinstance(detector, ClampedDescentDetector):
        if target is not None or top or given or preset != PRESETS["default"]:
            raise SalienceError(
                f"bundle {detector.bundle.path}: holds {detector.bundle.manifest.method}, expected cgd for --class, "
                "--preset, --set and --top."
            )
        return None

    def tell(source: Path, found: ObjectMap) -> None:
        seen = ", ".join(f"{name} {share:.2f}" for name, share in found.classes(top))
        typer.echo(f"{source}: {seen}")

    return ObjectFinder(detector, target, preset, tell if top else lambda source, found: None)


def _predict_stdin(detector: Detector, finder: ObjectFinder | None, kind: Kind, threshold: float | None) -> None:
    data = sys.stdin.buffer.read(STDIN_LIMIT_BYTES + 1)
    if len(data) > STDIN_LIMIT_BYTES:
        raise SalienceError(f"stdin: more than {STDIN_LIMIT_BYTES >> 30} GB, which no picture needs.")
    found = detector.predict(data) if finder is None else finder.locate(data)
    png = encode_png(found.render(kind, threshold=threshold))
    sys.stdout.buffer.write(png)
    sys.stdout.buffer.flush()
