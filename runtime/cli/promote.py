"""`salience promote`."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..commands import report_errors
from ..detector import Detector, open_detector
from ..errors import SalienceError
from ..load_options import LoadOptions
from ..manifest import MANIFEST_FILE
from ..methods.lps import EmptyPrior, PromoterDetector
from ..option_groups import expand_options
from ..priors import Promotion, StoredPriors, check_kept
from ..saliency import Kind
from .folders import check_threshold, pending_jobs, share_cores, write_all
from .options import ThresholdOption


@report_errors
@expand_options
def promote(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, patterns.")],
    prior: Annotated[Path, typer.Option(help="Folder of maps named as the pictures, or a bundle that makes them.")],
    bundle: Annotated[Path, typer.Option(help="Folder made by build_engine.py lps.")],
    iterations: Annotated[int, typer.Option(min=1, max=1000, help="How often the prior is refined.")] = 1,
    every: Annotated[bool, typer.Option("--every", help="Write OUTPUT/t01, t02, ... too.")] = False,
    empty: Annotated[EmptyPrior, typer.Option(help="A prior that is 0 or 1 everywhere: an error, or kept.")] = "error",
    output: Annotated[Path, typer.Option(help="Folder for the results, PNG files.")] = Path("promoted"),
    kind: Annotated[Kind, typer.Option(help="What to write.")] = "map",
    threshold: ThresholdOption = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Pictures per engine call.")] = 1,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave results that are there.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that decode, and that write.")] = 2,
    *,
    options: LoadOptions,
) -> None:
    """Make better maps of priors, which any detector may have made; exit code 1 if any picture gave none."""
    check_threshold(kind, threshold)
    jobs, skipped = pending_jobs(inputs, output, skip_existing=skip_existing)
    threads, calls = share_cores(options.threads, len(jobs))
    options = replace(options, threads=threads)
    promoter = open_detector(bundle, options)
    if not isinstance(promoter, PromoterDetector):
        method = promoter.bundle.manifest.method
        raise SalienceError(f"bundle {bundle}: holds {method}, expected lps; give maps or that bundle as --prior.")
    # The prior's bundle has a default precision of its own.
    priors: StoredPriors | Detector = (
        open_detector(prior, replace(options, precision="auto"))
        if (prior / MANIFEST_FILE).exists()
        else StoredPriors(prior)
    )
    if isinstance(priors, PromoterDetector):
        raise SalienceError(f"prior {prior}: holds lps, which needs a prior itself; give maps or another bundle.")
    kept = priors.paths() if isinstance(priors, StoredPriors) else []
    check_kept(kept, jobs, output=output, steps=iterations if every else 0)
    names = {job.source: job.target.relative_to(output).with_suffix("") for job in jobs}
    promotion = Promotion(promoter, priors, names, iterations, empty, every)
    write_all(
        promotion, jobs, output=output, skipped=skipped, kind=kind, threshold=threshold, batch=batch, workers=workers,
        calls=1 if promoter.on_gpu else calls, extras=partial(promotion.steps, output=output) if every else None,
    )  # fmt: skip
