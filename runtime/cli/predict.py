"""`salience predict`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..commands import report_errors
from ..detector import Detector, load
from ..errors import SalienceError
from ..images import encode_png
from ..saliency import Kind
from .folders import check_threshold, pending_jobs, write_all
from .options import BackendOption, BundleOption, DeviceOption, PrecisionOption, ProviderOption, ThreadsOption

STDIN_LIMIT_BYTES = 1 << 30


@report_errors
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, patterns; '-' reads one picture from stdin.")],
    bundle: BundleOption = None,
    output: Annotated[Path, typer.Option(help="Folder for the results, PNG files.")] = Path("saliency"),
    kind: Annotated[Kind, typer.Option(help="What to write.")] = "map",
    threshold: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Of masks. [twice the map's mean]")] = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Pictures per engine call.")] = 1,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave results that are there.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that decode, and that write.")] = 2,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
) -> None:
    """Write the saliency map of every picture; exit code 1 if any gave none."""
    check_threshold(kind, threshold)
    from_stdin = inputs == ["-"]
    if "-" in inputs and not from_stdin:
        raise SalienceError("input '-': reads one picture from stdin and cannot be mixed with other inputs.")
    jobs, skipped = ([], 0) if from_stdin else pending_jobs(inputs, output, skip_existing=skip_existing)
    detector = load(bundle, backend=backend, precision=precision, device=device, threads=threads, provider=provider)
    detector.require_standalone()
    if from_stdin:
        _predict_stdin(detector, kind, threshold)
        return
    write_all(
        detector, jobs, output=output, skipped=skipped, kind=kind, threshold=threshold, batch=batch, workers=workers
    )


def _predict_stdin(detector: Detector, kind: Kind, threshold: float | None) -> None:
    data = sys.stdin.buffer.read(STDIN_LIMIT_BYTES + 1)
    if len(data) > STDIN_LIMIT_BYTES:
        raise SalienceError(f"stdin: more than {STDIN_LIMIT_BYTES >> 30} GB, which no picture needs.")
    png = encode_png(detector.predict(data).render(kind, threshold=threshold))
    sys.stdout.buffer.write(png)
    sys.stdout.buffer.flush()
