"""Report of several methods on the same images: tables, and their curves in one figure."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..files import write_atomic
from ..splits import Part
from .command import Evaluation, LoadMap
from .figures import draw_many_curves, printable
from .page import render_page, table
from .report import (
    Report,
    comparison_section,
    data_uri,
    failure_listing,
    make_report,
    sources_section,
    write_report,
)


class Comparison(BaseModel):
    """The contents of `scores.json` of a comparison: the report of each method by its name."""

    model_config = ConfigDict(frozen=True)

    methods: dict[str, Report]


def write_comparison(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    load_maps: Mapping[str, LoadMap],
    *,
    maps: Mapping[str, Path],
    masks: Path,
    part: Part | None = None,
    detectors: Mapping[str, str] | None = None,
) -> Path:
    """Write `report.html`, `curves.png` and `scores.json` of all methods, and the report of each in its own folder.

    Args:
        folder: created where it is missing; files of an earlier report are replaced.
        evaluations: of `compare_maps`.
        load_maps: as given to `compare_maps`.
        maps: folder of each method's maps, or of the images that they were made of.
        masks: folder of the masks.
        part: part of the split file that was scored.
        detectors: what made the maps of each method; without it they were read from files.

    Returns:
        The path of `report.html`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        ImageError, DataError: a map or mask that was scored cannot be read any more.
    """
    reports = {}
    for name, found in evaluations.items():
        detector = detectors.get(name) if detectors else None
        write_report(
            folder / name, found, load_maps[name], maps=maps[name], masks=masks, part=part, detector=detector
        )  # fmt: skip
        reports[printable(name)] = make_report(found, maps=maps[name], masks=masks, part=part, detector=detector)
    curves = draw_many_curves({name: report.curves for name, report in reports.items()})
    page = folder / "report.html"
    write_atomic(folder / "curves.png", curves)
    write_atomic(page, _render(reports, evaluations, curves).encode())
    write_atomic(folder / "scores.json", Comparison(methods=reports).model_dump_json(indent=2).encode())
    return page


def _render(reports: Mapping[str, Report], evaluations: Mapping[str, Evaluation], curves: bytes) -> str:
    first = next(iter(reports.values()))
    evidence = first.evidence
    facts = [
        ("masks", evidence.masks + (f", part {evidence.part}" if evidence.part else "")),
        ("images scored for every method", str(evidence.images)),
        ("not scored", str(evidence.failures)),
        ("maps stretched to the full range", "yes" if evidence.normalised else "no"),
        ("salience", evidence.salience),
    ]
    made = [
        (name, report.evidence.maps, report.evidence.detector or "", str(report.evidence.resized))
        for name, report in reports.items()
    ]
    parts = [
        table((), facts),
        table(("method", "maps", "made by", "resized to their mask"), made),
        failure_listing(first.failures),
        "<h2>Scores</h2>",
        comparison_section({name: report.scores for name, report in reports.items()}, title="method"),
        "<h2>Curves</h2>",
        f'<img src="{data_uri(curves)}" alt="Mean precision-recall curve and image-averaged F of each method">',
        *(sources_section(found, f"Sources: {printable(name)}") for name, found in evaluations.items()),
    ]
    return render_page(f"Comparison on {evidence.masks}", "\n".join(filter(None, parts)), images="inside")
