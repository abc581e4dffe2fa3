"""`salience cosaliency`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..commands import report_errors
from ..detector import open_detector
from ..errors import SalienceError
from ..groups import parse_bytes, plan_groups, run_groups
from ..load_options import LoadOptions
from ..methods.gicd import GroupDetector
from ..option_groups import expand_options
from ..saliency import Kind
from .folders import check_threshold, report
from .options import ThresholdOption


@report_errors
@expand_options
def cosaliency(
    folders: Annotated[list[Path], typer.Argument(help="Folders; the pictures of each, at any depth, are a group.")],
    bundle: Annotated[Path, typer.Option(help="Folder made by build_engine.py gicd.")],
    output: Annotated[Path, typer.Option(help="Folder for the results, OUTPUT/GROUP/NAME.png.")] = Path("cosaliency"),
    memory: Annotated[
        str, typer.Option(help="For features kept between the passes; what does not fit is computed again.")
    ] = "512MB",
    kind: Annotated[Kind, typer.Option(help="What to write.")] = "map",
    threshold: ThresholdOption = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Pictures per engine call.")] = 1,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave results that are there.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that decode, and that write.")] = 2,
    *,
    options: LoadOptions,
) -> None:
    """Write what the pictures of each group have in common; exit code 1 if any picture gave no map."""
    check_threshold(kind, threshold)
    memory_bytes = parse_bytes(memory)
    groups = plan_groups(folders, output)
    pending = {job for jobs in groups for job in jobs if not (skip_existing and job.target.exists())}
    detector = open_detector(bundle, options)
    if not isinstance(detector, GroupDetector):
        method = detector.bundle.manifest.method
        raise SalienceError(f"bundle {bundle}: holds {method}, expected gicd; for single pictures: salience predict.")
    run = partial(
        run_groups, detector, [jobs for jobs in groups if pending.intersection(jobs)], kind=kind, threshold=threshold,
        memory_bytes=memory_bytes, batch=batch, workers=workers, wanted=pending.__contains__,
    )  # fmt: skip
    skipped = sum(map(len, groups)) - len(pending)
    report(run, len(pending), output=output, skipped=skipped, source=f"{detector.backend}, {detector.precision}")
