"""Reports of an evaluation: `scores.json`, `curves.png`, `contact_sheet.png` and `report.html`."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from salience import __version__

from ..files import write_atomic
from ..splits import Part
from .command import Evaluation, LoadMap
from .figures import draw_contact_sheet, draw_curves, printable
from .metrics import Curves, Scores
from .page import details, render_page, table
from .tables import SCORE_HEAD, comparison_rows, precision_recall_rows, score_rows, source_scores


class ImageRow(BaseModel):
    """One image of the list in `scores.json`; `f_max` is F at the image's own best threshold."""

    model_config = ConfigDict(frozen=True)

    name: str
    mae: float
    f_max: float


class FailureRow(BaseModel):
    """One image that could not be scored, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class Evidence(BaseModel):
    """What was scored, so that two reports are compared only where they can be.

    Attributes:
        salience: version that took the scores.
        images: how many are in the averages.
        failures: how many could not be scored.
        resized: how many maps were brought to the size of their mask.
        normalised: every map was stretched to the full range first.
        maps, masks: the last two names of the folders' paths.
        part: of the split file, None where all masks were scored.
        detector: what made the maps, None where they were read from files.
    """

    model_config = ConfigDict(frozen=True)

    salience: str
    images: int
    failures: int
    resized: int
    normalised: bool
    maps: str
    masks: str
    part: Part | None
    detector: str | None


class Report(BaseModel):
    """The contents of `scores.json`.

    Attributes:
        images: in the order of their evaluation, by name.
        sources: scores of each source (first folder of the names); empty where they were not taken.
        mean_of_sources: mean over `sources`, each of equal weight.
    """

    model_config = ConfigDict(frozen=True)

    scores: Scores
    evidence: Evidence
    images: tuple[ImageRow, ...]
    failures: tuple[FailureRow, ...]
    curves: Curves
    sources: dict[str, Scores] = {}
    mean_of_sources: Scores | None = None


def write_report(
    folder: Path,
    evaluation: Evaluation,
    load_map: LoadMap,
    *,
    maps: Path,
    masks: Path,
    part: Part | None = None,
    detector: str | None = None,
) -> Path:
    """Write the report's four files, each of them whole or not at all.

    Args:
        folder: created where it is missing; files of an earlier report are replaced.
        evaluation: what to report.
        load_map: as given to `evaluate_maps`; called again for the images of the contact sheet.
        maps: folder of the maps, or of the pictures that they were made of.
        masks: folder of the masks.
        part: part of the split file that was scored.
        detector: name of what made the maps.

    Returns:
        The path of `report.html`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        ImageError, DataError: a map or mask that was scored cannot be read any more.
    """
    report = make_report(evaluation, maps=maps, masks=masks, part=part, detector=detector)
    curves = draw_curves(evaluation.curves)
    sheet = draw_contact_sheet(evaluation, load_map)
    page = folder / "report.html"
    write_atomic(folder / "curves.png", curves)
    write_atomic(folder / "contact_sheet.png", sheet)
    write_atomic(page, _render_page(report, evaluation, curves, sheet).encode())
    write_atomic(folder / "scores.json", report.model_dump_json(indent=2).encode())
    return page


def make_report(evaluation: Evaluation, *, maps: Path, masks: Path, part: Part | None, detector: str | None) -> Report:
    """Return the contents of `scores.json`; arguments as for `write_report`."""
    evidence = Evidence(
        salience=__version__,
        images=len(evaluation.images),
        failures=len(evaluation.failures),
        resized=evaluation.resized,
        normalised=evaluation.normalised,
        maps=_folder_name(maps),
        masks=_folder_name(masks),
        part=part,
        detector=detector,
    )
    return Report(
        scores=evaluation.scores,
        evidence=evidence,
        images=tuple(
            ImageRow(name=printable(result.pair.name), mae=result.mae, f_max=result.f_max)
            for result in evaluation.images
        ),
        failures=tuple(
            FailureRow(name=printable(failure.name), reason=printable(failure.reason))
            for failure in evaluation.failures
        ),
        curves=evaluation.curves,
        sources={printable(name): scores for name, scores in evaluation.groups.items()},
        mean_of_sources=evaluation.mean_of_groups,
    )


def _folder_name(path: Path) -> str:
    return printable("/".join(path.resolve().parts[1:][-2:]))


def _render_page(report: Report, evaluation: Evaluation, curves: bytes, sheet: bytes) -> str:
    evidence = report.evidence
    facts = [
        ("maps", evidence.maps + (f", by {evidence.detector}" if evidence.detector else "")),
        ("masks", evidence.masks + (f", part {evidence.part}" if evidence.part else "")),
        ("images scored", str(evidence.images)),
        ("not scored", str(evidence.failures)),
        ("maps resized to their mask", str(evidence.resized)),
        ("maps stretched to the full range", "yes" if evidence.normalised else "no"),
        ("salience", evidence.salience),
    ]
    images = [(image.name, f"{image.f_max:.4f}", f"{image.mae:.4f}") for image in report.images]
    parts = [
        table((), facts),
        failure_listing(report.failures),
        "<h2>Scores</h2>",
        table(SCORE_HEAD, score_rows(report.scores)),
        sources_section(evaluation),
        "<h2>Curves</h2>",
        f'<img src="{data_uri(curves)}" alt="Mean precision-recall curve, and image-averaged F over the threshold">',
        "<h2>Best and worst images</h2>",
        f'<img src="{data_uri(sheet)}" alt="The images of largest and smallest F, with mask and map">',
        _listing("Every image", ("image", "own max F", "MAE"), images),
    ]
    style = "td:nth-child(5) { color: var(--soft); }\n"
    return render_page(f"Evaluation of {evidence.maps}", "\n".join(filter(None, parts)), images="inside", style=style)


def sources_section(evaluation: Evaluation, title: str = "Sources") -> str:
    """HTML of the scores of each source, empty where they were not taken."""
    rows = {printable(name): scores for name, scores in source_scores(evaluation).items()}
    if not rows:
        return ""
    return f"<h2>{escape(title)}</h2>\n{comparison_section(rows, title='source')}"


def comparison_section(scores: Mapping[str, Scores], *, title: str) -> str:
    """HTML of a table of scores, a row for each name, and of the precision and recall of each F."""
    return "\n".join(table(*make(scores, title=title)) for make in (comparison_rows, precision_recall_rows))


def failure_listing(failures: Sequence[FailureRow]) -> str:
    """HTML of the images that were not scored, empty where there are none."""
    rows = [(failure.name, failure.reason) for failure in failures]
    return _listing(f"{len(rows)} not scored", ("image", "reason"), rows, opened=True)


def _listing(summary: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, opened: bool = False) -> str:
    return details(summary, table(head, rows), opened=opened) if rows else ""


def data_uri(png: bytes) -> str:
    """Return a PNG as the address of an image inside a page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
