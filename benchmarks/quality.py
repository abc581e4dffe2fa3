"""Scores of every method's bundle on the research data, in every precision and backend, beside its own fp32.

    python -m benchmarks.quality --bundle multis=bundles/multis lps=bundles/lps --data DATA \
        --precisions fp32 fp16-weights int8 --backends onnxruntime openvino --json quality.json --markdown quality.md \
        --report report --ablations ablations.json --runs multis=runs/multis

DATA holds splits.json and the sets ecssd, horses and coseg. A second bundle of a method has a label: multis:mirror=DIR.
What a bundle lacks is a row "not built", what fails a row with the reason; neither stops the run. The report
shows pictures of DATA, so its folder is best outside of the repository; its JSON and Markdown show none.
"""

import argparse
import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.evidence import Evidence
from benchmarks.markdown_text import markdown_table
from benchmarks.method_maps import Grey, accumulate, pairs_of
from benchmarks.quality_options import open_bundles, parse_options
from benchmarks.quality_rows import COLUMNS, NOT_BUILT, Row, cells, in_order, with_changes
from benchmarks.quality_studies import PRIORS, SINGLE, STUDIES, Maps, Study, stored_studies
from benchmarks.report import Contents, write_report
from benchmarks.report_detail import Detail, detail_of, keep
from salience.runtime import Bundle, load
from salience.runtime.evaluation.metrics import Scores
from salience.runtime.files import write_atomic
from salience.runtime.manifest import Precision, Quantization

Found = tuple[Scores, Detail | None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print, and write after every combination, so that a run that is stopped leaves what it has."""
    options = parse_options(arguments)
    bundles = open_bundles(options.bundle)
    header = {
        "evidence": Evidence.gather().model_dump(),
        "metrics": f"pysodmetrics {version('pysodmetrics')}",
        "part": options.part,
        "limit": options.limit,
        "bundles": {name: describe(bundle) for name, bundle in bundles.items()},
    }
    earlier = read_earlier(header, options) if options.add else []
    rows: list[Row] = []
    stored = stored_rows([b.manifest.method for b in bundles.values()], options) if options.report else []
    for name, bundle in bundles.items():
        for found in method_rows(bundle, options):
            rows = with_changes(in_order([*rows, *(row.labelled(name.partition(":")[2]) for row in found)]))
            write(header, earlier, rows, options)
        if options.report:
            # What `lps` starts from stands among the stored maps.
            shown = [row for row in rows if row.form != PRIORS]
            write_report(options.report, Contents(header, [*stored, *shown], SINGLE, options.ablations, options.runs))
    report(rows)


def read_earlier(header: dict[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of other methods that the JSON file holds; `header` gets their bundles."""
    if not options.json or not options.json.exists():
        return []
    found = json.loads(options.json.read_text(encoding="utf-8"))
    both = sorted(found["bundles"].keys() & header["bundles"])
    if both:
        raise SystemExit(f"--add: {options.json} holds {', '.join(both)} already; write to a new file.")
    if any(found[key] != header[key] for key in ("metrics", "part", "limit")):
        raise SystemExit(f"--add: {options.json} is of another part, limit or metrics; write to a new file.")
    if found["evidence"]["commit"] != header["evidence"]["commit"]:
        raise SystemExit(f"--add: {options.json} is of another commit; write to a new file.")
    header["bundles"] = {**found["bundles"], **header["bundles"]}
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def method_rows(bundle: Bundle, options: argparse.Namespace) -> Iterator[list[Row]]:
    """The yardsticks of a bundle's method, then the rows of one precision and backend after another."""
    studies = [study for study in STUDIES if study.method == bundle.manifest.method]
    yield [row for study in studies if study.yardstick for row in yardstick_rows(bundle, study, options)]
    for backend in options.backends:
        for precision in options.precisions:
            if precision not in bundle.precisions():
                yield [_row(s, form, precision, backend, NOT_BUILT) for s in studies for form in s.forms]
            else:
                yield combination_rows(bundle, studies, precision, backend, options)
                gc.collect()  # engines hold hundreds of megabytes


def yardstick_rows(bundle: Bundle, study: Study, options: argparse.Namespace) -> list[Row]:
    """One row, of no precision and no backend."""
    name, maps = study.yardstick or ("", study.maps)
    try:
        detector = load(bundle.path, backend="onnxruntime")
        return [_row(study, name, None, None, found) for found in measure(study, maps, detector, options).values()]
    except Exception as error:
        return [_row(study, name, None, None, _reason(error))]


def stored_rows(methods: Iterable[str], options: argparse.Namespace) -> list[Row]:
    """The stored maps of the pictures that the methods are scored on, each selection of pictures once."""
    rows: list[Row] = []
    for study in stored_studies(methods):
        try:
            found: Found | str = measure(study, study.maps, None, options)[""]
        except Exception as error:
            found = _reason(error)
        row = replace(_row(study, "", None, None, found), yardstick=True)
        if row.pictures not in [other.pictures for other in rows]:
            rows.append(row)
    return rows


def combination_rows(
    bundle: Bundle, studies: Sequence[Study], precision: Precision, backend: Any, options: argparse.Namespace
) -> list[Row]:
    """The rows of all studies of a method in one precision and backend."""
    try:
        detector = load(bundle.path, backend=backend, precision=precision)
    except Exception as error:
        return [_row(s, form, precision, backend, _reason(error)) for s in studies for form in s.forms]
    rows = []
    for study in studies:
        try:
            found = measure(study, study.maps, detector, options)
            rows += [_row(study, form, precision, backend, found[form]) for form in study.forms]
        except Exception as error:
            rows += [_row(study, form, precision, backend, _reason(error)) for form in study.forms]
    return rows


def measure(study: Study, maps: Maps, detector: Any, options: argparse.Namespace) -> dict[str, Found]:
    """The scores of each form on the study's pictures, and what a report needs of them if one is asked for."""
    folder = options.data / study.set_name
    pairs = pairs_of(folder, sources=study.sources, splits=options.data / "splits.json", part=options.part)
    limits = [most for most in (study.most, options.limit) if most]
    pairs = pairs[: min(limits, default=None)]
    watched = track(pairs, f"{study.method} on {study.set_name}", console=Console(stderr=True), transient=True)
    made, kept = maps(detector, watched), dict[str, list[Grey]]()
    metrics = accumulate(pairs, keep(made, kept) if options.report else made)
    return {
        form: (found.scores(), detail_of(pairs, found, kept[form]) if options.report else None)
        for form, found in metrics.items()
    }


def _row(study: Study, form: str, precision: str | None, backend: str | None, found: Found | str) -> Row:
    """A row of scores, or of why there are none."""
    if isinstance(found, str):
        return Row(study.method, form, study.set_name, precision, backend, scores=None, reason=found)
    scores, detail = found
    return Row(study.method, form, study.set_name, precision, backend, scores=scores, detail=detail)


def _reason(error: Exception) -> str:
    """The first line of an error, with its type."""
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"


def describe(bundle: Bundle) -> dict[str, Any]:
    """What a bundle was made of."""
    provenance, record = bundle.manifest.provenance, bundle.verification()
    chosen = record.quantization if record else None
    kept = ("checkpoint", "checkpoint_sha256", "parameters", "options")
    return {
        "created": bundle.manifest.created,
        "input_size": bundle.manifest.input_size,
        "precisions": bundle.precisions(),
        "backbone": provenance.get("network", {}).get("backbone"),
        **{name: provenance[name] for name in kept if name in provenance},
        **({"int8": int8_layers(chosen)} if chosen else {}),
    }


def int8_layers(chosen: Quantization) -> dict[str, Any]:
    """How many layers of the int8 files are fp32, and what part of the multiply-adds that is."""
    fp32 = sum(layer.kept for layer in chosen.layers)
    return {"layers": len(chosen.layers), "fp32": fp32, "fp32_share": chosen.kept_share}


def write(header: dict[str, Any], earlier: Sequence[Any], rows: Sequence[Row], options: argparse.Namespace) -> None:
    """The files that were asked for."""
    if options.json:
        record = {**header, "rows": [*earlier, *(row.record() for row in rows)]}
        write_atomic(options.json, f"{json.dumps(record, indent=1)}\n".encode())
    if options.markdown:
        table = markdown_table(COLUMNS, [cells(row) for row in rows])
        write_atomic(options.markdown, f"{table}\n".encode())


def report(rows: Sequence[Row]) -> None:
    """A table on standard output."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
