"""Tables and curves of training runs, and tables of ablations."""

from collections.abc import Sequence
from statistics import mean, stdev

from benchmarks.markdown_text import error, share
from benchmarks.report_blocks import Block, Grid, Heading, Pictures, Text
from benchmarks.report_runs import Ablations, Claim, TrainingRun, Variant, unique_titles
from salience.training.curves import draw_history

TRAINING_CURVES = "training.png"


def training_blocks(runs: Sequence[TrainingRun]) -> list[Block]:
    """A table of the runs and a picture of their curves; nothing without runs."""
    if not runs:
        return []
    columns = ["run", "epochs", "hours", "images per second", "best epoch", "max F", "MAE", "last loss"]
    rows = [[title, *_run_cells(run)] for title, run in zip(unique_titles(runs), runs, strict=True)]
    total = sum(run.hours for run in runs)
    return [
        Heading(2, "Training"),
        Text(f"{len(runs)} runs, {total:.1f} hours together. Max F and MAE are of the validation part at input size, "
             "of the epoch with the largest max F."),
        Grid(columns, rows),
        Pictures([(TRAINING_CURVES, "Loss, validation max F and MAE over the epochs")], wide=True),
    ]  # fmt: skip


def _run_cells(run: TrainingRun) -> list[str]:
    speeds = [epoch.images_per_second for epoch in run.epochs if epoch.images_per_second]
    best = run.best
    return [
        str(len(run.epochs)), f"{run.hours:.2f}", f"{mean(speeds):.1f}" if speeds else "", str(best.epoch + 1),
        share(best.scores["f_max"]), error(best.scores["mae"]), f"{run.epochs[-1].loss:.4f}",
    ]  # fmt: skip


def draw_training(runs: Sequence[TrainingRun]) -> bytes:
    """PNG of loss and validation scores over the epochs, a line a run."""
    return draw_history([(title, run.epochs) for title, run in zip(unique_titles(runs), runs, strict=True)])


def ablation_blocks(ablations: Ablations | None) -> list[Block]:
    """A table of the verdicts, and one of the variants for each claim."""
    if ablations is None:
        return []
    verdicts = [[claim.claim, claim.method, claim.verdict, claim.reason] for claim in ablations.claims]
    return [
        Heading(2, "Ablations"),
        Text(f"{len(ablations.runs)} runs. Values are means over the seeds, ± the standard deviation of one seed."),
        Grid(["claim", "method", "verdict", "reason"], verdicts),
        *(block for claim in ablations.claims for block in _claim_blocks(claim)),
    ]


def _claim_blocks(claim: Claim) -> list[Block]:
    rows = [
        [
            row.variant,
            ", ".join(map(str, row.seeds)),
            str(row.pictures or ""),
            _spread(row.scores.f_max),
            _spread(row.scores.mae),
            _each(row),
        ]
        for row in claim.rows
    ]
    columns = ["variant", "seeds", "pictures", "max F", "MAE", "max F of each seed"]
    return [Heading(3, f"{claim.method}: {claim.claim}"), Text(f"{claim.verdict.capitalize()}: {claim.reason}"),
            Grid(columns, rows)]  # fmt: skip


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {share(stdev(values), 4)}" if len(values) > 1 else ""
    return f"{share(mean(values), 4)}{spread}"


def _each(row: Variant) -> str:
    return ", ".join(share(value, 4) for value in row.scores.f_max)
