"""The report's chapters on quality: scores, comparisons with stored maps, and failures, set by set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.markdown_text import change, error, share
from benchmarks.quality_rows import Row
from benchmarks.report_attributes import Relation, relation, relation_sentences, stored_attributes, unusual_words
from benchmarks.report_blocks import Block, Grid, Heading, Pictures, Text
from benchmarks.report_detail import Detail, Values
from benchmarks.report_intervals import Estimate, f_max_difference, f_max_estimate, mean_difference, mean_estimate
from benchmarks.report_rules import ATTRIBUTES, KINDS, LEVEL, WORST

SHEETS = "sheets"
_SET_TITLES = {"ecssd": "ECSSD", "horses": "Weizmann horses", "coseg": "co-segmentation of PASCAL VOC 2010"}
_SCORES = {
    "f_mean": "mean F", "f_adaptive": "adaptive F", "f_weighted": "weighted F", "s": "S", "e_max": "max E",
    "e_mean": "mean E", "e_adaptive": "adaptive E", "auc": "AUC",
}  # fmt: skip
_SIGNS = {1: "higher", -1: "lower", 0: "not clearly different"}


@dataclass(frozen=True)
class Comparison:
    """A row against stored maps of the same pictures: differences, ours less theirs."""

    row: Row
    yardstick: Row
    f_max: Estimate
    mae: Estimate


def set_blocks(name: str, rows: Sequence[Row], single: Iterable[str]) -> list[Block]:
    """The chapter of a set; `single` are the methods that see nothing but the picture."""
    blocks: list[Block] = [Heading(2, _SET_TITLES.get(name, name)), scores_grid(rows)]
    compared = comparisons(rows)
    if compared:
        blocks += [
            Heading(3, f"Against stored maps, {name}"),
            *_best_text(compared, single),
            _comparison_grid(compared),
        ]
    shown = shown_rows(rows)
    if shown:
        text = f"Precision and recall, and F over the threshold, of {', '.join(row.title for row in shown)}"
        blocks += [Heading(3, f"Curves, {name}"), Pictures([(curves_file(name), text)], wide=True)]
    for row in shown:
        blocks += failure_blocks(row)
    return blocks


def shown_rows(rows: Sequence[Row]) -> list[Row]:
    """The row of each method, form and number of pictures whose curves, sheets and failures are shown: the first."""
    found: dict[Any, Row] = {}
    for row in rows:
        if row.detail:
            found.setdefault((row.title, len(row.detail.pairs)), row)
    return list(found.values())


def scores_grid(rows: Sequence[Row]) -> Grid:
    """All scores of a set, with intervals, or why there are none."""
    level = f"{LEVEL:.0%} interval"
    columns = ["method", "precision", "backend", "pictures", "max F", level, "MAE", level, *_SCORES.values()]
    return Grid(columns, [_score_cells(row, len(columns)) for row in rows])


def _score_cells(row: Row, count: int) -> list[str]:
    head = [row.title, row.precision or "", row.backend or ""]
    if row.scores is None or row.detail is None:
        return [*head, "", row.reason, *[""] * (count - len(head) - 2)]
    f_max, mae = f_max_estimate(row.detail.f_curves), mean_estimate(row.detail.mae)
    found = row.scores.model_dump()
    rest = ["" if found[name] is None else share(found[name]) for name in _SCORES]
    spans = [f"{share(f_max.low)} to {share(f_max.high)}", f"{error(mae.low)} to {error(mae.high)}"]
    return [*head, str(row.scores.images), share(f_max.value), spans[0], error(mae.value), spans[1], *rest]


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Every row of a set against the stored maps of the very same pictures."""
    yardsticks = {row.pictures: row for row in rows if row.detail and row.yardstick}
    found = []
    for row in rows:
        other = None if row.yardstick else yardsticks.get(row.pictures)
        if row.detail and other and other.detail:
            f_max = f_max_difference(row.detail.f_curves, other.detail.f_curves)
            found.append(Comparison(row, other, f_max, mean_difference(row.detail.mae, other.detail.mae)))
    return found


def best_single(compared: Sequence[Comparison], single: Iterable[str]) -> Comparison | None:
    """Of the methods that see nothing but the picture, the largest max F on the most pictures."""
    ours = [found for found in compared if found.row.method in set(single) and found.row.precision]
    return max(ours, key=lambda c: (c.row.scores.images, c.row.scores.f_max) if c.row.scores else (0, 0), default=None)


def _best_text(compared: Sequence[Comparison], single: Iterable[str]) -> list[Block]:
    best = best_single(compared, single)
    if best is None or best.row.scores is None:
        return []
    name = f"{best.row.title} ({best.row.precision}, {best.row.backend})"
    return [
        Text(
            f"The best single-image row, chosen by max F on these {best.row.scores.images} pictures, is {name}: "
            f"against {best.yardstick.title} its max F is {_words(best.f_max)}, its MAE {_words(best.mae)}."
        )
    ]


def _words(found: Estimate) -> str:
    """A difference in words."""
    return f"{_SIGNS[found.sign]} ({change(found.value)}, {change(found.low)} to {change(found.high)})"


def _comparison_grid(compared: Sequence[Comparison]) -> Grid:
    columns = ["method", "precision", "backend", "against", "pictures", "max F", "max F is", "MAE", "MAE is"]
    rows = []
    for found in compared:
        row, cells = found.row, []
        for estimate in (found.f_max, found.mae):
            span = f"{change(estimate.value)} ({change(estimate.low)} to {change(estimate.high)})"
            cells += [span, _SIGNS[estimate.sign]]
        images = str(row.scores.images) if row.scores else ""
        rows.append([row.title, row.precision or "", row.backend or "", found.yardstick.title, images, *cells])
    return Grid(columns, rows)


def failure_blocks(row: Row) -> list[Block]:
    """Contact sheets and failures of a row."""
    if row.detail is None:
        return []
    detail, values = row.detail, attribute_values(row.detail)
    relations = relations_of(detail, values)
    failed = sum(bool(kinds) for kinds in detail.kinds)
    title = f"{row.title} on {row.set_name}, {len(detail.pairs)} pictures"
    files = [(sheet_file(row, word), f"The {word} pictures of {title}: picture, mask, map") for word in detail.sheets]
    text = (
        f"{failed} of {len(detail.pairs)} pictures show a kind of failure at threshold {detail.threshold}. "
        f"{relation_sentences(relations)}"
    )
    precision = f" ({row.precision}, {row.backend})" if row.precision else ""
    return [
        Heading(3, f"{title}{precision}"),
        Pictures(files),
        Text(text),
        _kinds_grid(detail),
        _worst_grid(detail, values),
        _relations_grid(relations),
    ]


def attribute_values(detail: Detail) -> dict[str, Values]:
    """The attributes of the pictures, (N,) each."""
    found = [stored_attributes(pair.picture, pair.mask) for pair in detail.pairs if pair.picture]
    return {a.name: np.array([values[a.name] for values in found]) for a in ATTRIBUTES}


def relations_of(detail: Detail, values: dict[str, Values]) -> list[Relation]:
    """How the scores go with each attribute."""
    return [relation(attribute, values[attribute.name], mae=detail.mae, f=detail.f) for attribute in ATTRIBUTES]


def by_kind(detail: Detail) -> dict[str, list[int]]:
    """The indices of the pictures of each kind."""
    return {kind: [i for i, kinds in enumerate(detail.kinds) if kind in kinds] for kind in KINDS}


def _kinds_grid(detail: Detail) -> Grid:
    rows = []
    of_none = [i for i, kinds in enumerate(detail.kinds) if not kinds]
    for kind, chosen in (*by_kind(detail).items(), ("none of these", of_none)):
        scores = (
            [error(float(detail.mae[chosen].mean())), share(float(detail.f[chosen].mean()))] if chosen else ["", ""]
        )
        rows.append([kind, str(len(chosen)), f"{len(chosen) / len(detail.pairs):.0%}", *scores])
    return Grid(["kind of failure", "pictures", "of all", "mean MAE", "mean F"], rows)


def _worst_grid(detail: Detail, values: dict[str, Values]) -> Grid:
    words = unusual_words(values)
    worst = detail.ranked[::-1][: min(WORST, (len(detail.pairs) + 1) // 2)]
    rows = [
        [detail.names[i], share(float(detail.f[i])), error(float(detail.mae[i])), share(float(detail.s[i])),
         ", ".join(detail.kinds[i]), ", ".join(words[i])]
        for i in worst
    ]  # fmt: skip
    return Grid(["worst pictures", "F", "MAE", "S", "kinds of failure", "unusual"], rows)


def _relations_grid(relations: Sequence[Relation]) -> Grid:
    titles = {attribute.name: attribute.title for attribute in ATTRIBUTES}
    rows = []
    for found in relations:
        for index, part in enumerate(found.classes):
            correlations = ["" if index or value is None else f"{value:+.2f}" for value in (found.mae, found.f)]
            scores = ["" if part.mae is None else error(part.mae), "" if part.f is None else share(part.f)]
            rows.append([titles[found.attribute], part.title, str(part.pictures), *scores, *correlations])
    columns = ["attribute", "class", "pictures", "mean MAE", "mean F", "rank correlation with MAE", "with F"]
    return Grid(columns, rows, summary="Scores by attribute")


def curves_file(set_name: str) -> str:
    """Where the curves of a set are, from the report's folder."""
    return f"curves-{set_name}.png"


def sheet_file(row: Row, word: str) -> str:
    """Where a contact sheet is, from the report's folder."""
    count = len(row.detail.pairs) if row.detail else 0
    words = f"{row.title} {row.set_name} {count} {word}".lower()
    return f"{SHEETS}/{''.join(letter if letter.isalnum() else '-' for letter in words)}.png"
