"""Tables of scores: what each score is called, and how one set, several methods or several sources stand in rows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from .command import Evaluation
from .metrics import Scores


class Column(NamedTuple):
    """A score: its name in tables, its field of `Scores`, and what it measures."""

    name: str
    key: str
    meaning: str


CONVENTIONS = (
    Column("max F", "f_max", "maximum of the image-averaged F curve"),
    Column("max F of mean PR", "f_max_of_mean_pr", "maximum F of the averaged precision and recall"),
    Column("mean of max F", "f_mean_of_max", "each image at its own best threshold"),
    Column("adaptive F", "f_adaptive", "threshold at twice each map's mean, at most 1"),
)
"""The numbers that papers call F; each has a precision and a recall."""
COLUMNS = (
    Column("MAE", "mae", "mean absolute error, lower is better"),
    *CONVENTIONS,
    Column("mean F", "f_mean", "mean of the image-averaged F curve"),
    Column("weighted F", "f_weighted", "errors weighted by place and neighbourhood"),
    Column("S", "s", "structure, by object and region"),
    Column("max E", "e_max", "alignment, best single threshold"),
    Column("mean E", "e_mean", "alignment, average over all thresholds"),
    Column("adaptive E", "e_adaptive", "alignment, threshold at twice each map's mean"),
    Column("AUC", "auc", "area under the ROC curve"),
)
SCORE_HEAD = ("score", "value", "precision", "recall", "what it measures")
# A terminal of 80 columns has no room for the others; reports and JSON have them.
_NARROW = ("mae", *(column.key for column in CONVENTIONS), "f_mean", "f_weighted", "s")


class Rows(NamedTuple):
    """A table: column headings, and cells."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def score_rows(scores: Scores) -> list[tuple[str, str, str, str, str]]:
    """Return a row under `SCORE_HEAD`, to 4 digits, for every score that was taken."""
    return [
        (
            column.name,
            f"{getattr(scores, column.key):.4f}",
            _digits(scores, f"{column.key}_precision"),
            _digits(scores, f"{column.key}_recall"),
            column.meaning,
        )
        for column in COLUMNS
        if getattr(scores, column.key) is not None
    ]


def comparison_rows(scores: Mapping[str, Scores], *, title: str) -> Rows:
    """Return a row of all scores for each name.

    Args:
        scores: by method, or by source.
        title: heading of the names.
    """
    shown = [column for column in COLUMNS if any(getattr(found, column.key) is not None for found in scores.values())]
    rows = [
        (name, str(found.images), *(_digits(found, column.key) for column in shown)) for name, found in scores.items()
    ]
    return Rows((title, "images", *(column.name for column in shown)), rows)


def precision_recall_rows(scores: Mapping[str, Scores], *, title: str) -> Rows:
    """Return a row of the precision and recall that belong to each F, for each name."""
    keys = [f"{column.key}_{kind}" for column in CONVENTIONS for kind in ("precision", "recall")]
    head = [f"{column.name}: {kind}" for column in CONVENTIONS for kind in ("precision", "recall")]
    return Rows((title, *head), [(name, *(_digits(found, key) for key in keys)) for name, found in scores.items()])


def source_scores(evaluation: Evaluation) -> dict[str, Scores]:
    """Return the scores of each source, then their mean and those of all images; empty where none were asked for."""
    mean = evaluation.mean_of_groups
    if mean is None:
        return {}
    return {**evaluation.groups, "mean of sources": mean, "all images": evaluation.scores}


def scores_table(scores: Scores) -> Table:
    """The scores for a terminal; all but MAE are better when higher."""
    table = Table(title=f"Scores of {scores.images} image{'' if scores.images == 1 else 's'}", title_justify="left")
    for name in SCORE_HEAD[:-1]:
        table.add_column(name, justify="left" if name == "score" else "right", no_wrap=True)
    table.add_column(SCORE_HEAD[-1], style="dim")
    for row in score_rows(scores):
        table.add_row(*row)
    return table


def comparison_table(scores: Mapping[str, Scores], *, title: str, heading: str) -> Table:
    """A row for each method or source, for a terminal; the main scores alone."""
    shown = [column for column in COLUMNS if column.key in _NARROW]
    table = _narrow_table(title, heading, ["images", *(column.name for column in shown)])
    for name, found in scores.items():
        cells = (_digits(found, column.key, 4 if column.key == "mae" else 3) for column in shown)
        table.add_row(name, str(found.images), *cells)
    return table


def precision_recall_table(scores: Mapping[str, Scores], *, title: str, heading: str) -> Table:
    """The precision and recall that belong to each F, a row for each method, for a terminal."""
    table = _narrow_table(title, heading, [column.name for column in CONVENTIONS])
    for name, found in scores.items():
        kinds = ("precision", "recall")
        table.add_row(name, *(" / ".join(_digits(found, f"{c.key}_{kind}", 3) for kind in kinds) for c in CONVENTIONS))
    return table


def scores_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores for JSON, with those of each source and their mean where they were asked for."""
    found = evaluation.scores.model_dump()
    mean = evaluation.mean_of_groups
    if mean is not None:
        found["sources"] = {name: scores.model_dump() for name, scores in evaluation.groups.items()}
        found["mean_of_sources"] = mean.model_dump()
    return found


def _narrow_table(title: str, heading: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False
    )  # fmt: skip
    table.add_column(heading, overflow="fold")
    for name in columns:
        # Headings wrap between words; a number is never cut.
        table.add_column(name, justify="right", min_width=max(6, *map(len, name.split())))
    return table


def _digits(scores: Scores, key: str, digits: int = 4) -> str:
    value = getattr(scores, key, None)
    return "" if value is None else f"{value:.{digits}f}"
