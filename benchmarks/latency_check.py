"""Whether a run is slower than a stored one, by ratios to eager PyTorch of the same run, never by times."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.latency_record import Key, Record, Row
from salience.runtime.errors import DataError


@dataclass(frozen=True)
class Comparison:
    """Sentences: what became worse, which makes the check fail, and what cannot be compared, which does not."""

    worse: tuple[str, ...]
    missing: tuple[str, ...]


def compare(baseline: Record, found: Record, *, allow: float) -> Comparison:
    """The forms of our runtime in two runs.

    Args:
        baseline: what is compared with.
        found: the run that is judged.
        allow: the share by which a ratio may become larger.

    Raises:
        DataError: the runs computed different things.
    """
    if baseline.settings.model_dump(exclude={"sizes"}) != found.settings.model_dump(exclude={"sizes"}):
        raise DataError(
            f"baseline: measured with {_describe(baseline)}, this run with {_describe(found)}; "
            "use the same settings, or another baseline."
        )
    before, after = _ratios(baseline), _ratios(found)
    worse = [
        f"{_name(key)}: {after[key]:.3f} of eager PyTorch's time, was {before[key]:.3f}, "
        f"allowed {before[key] * (1 + allow):.3f}"
        for key in before
        if key in after and after[key] > before[key] * (1 + allow)
    ]
    missing = [f"{_name(key)}: not in this run" for key in before if key not in after]
    missing += [f"{_name(key)}: not in the baseline" for key in after if key not in before]
    return Comparison(tuple(worse), tuple(missing))


def _ratios(record: Record) -> dict[Key, float]:
    """Of the forms of our runtime; a method at another size is another form."""
    return {
        _sized(row, record): row.to_eager for row in record.rows if row.kind == "salience" and row.to_eager is not None
    }


def _sized(row: Row, record: Record) -> Key:
    height, width = record.settings.sizes[row.method]
    return f"{row.method} {height} x {width}", *row.key[1:]


def _name(key: Key) -> str:
    method, form, batch, threads = key
    return f"{method}, {form}, batch {batch}, {threads} threads"


def _describe(record: Record) -> str:
    settings = record.settings
    return f"{settings.backbone}, T = {settings.iterations}, groups of {settings.group}"


def lines(comparison: Comparison, *, allow: float) -> Sequence[str]:
    """What to print."""
    verdict = (
        f"{len(comparison.worse)} forms are slower than the baseline by more than {allow:.0%}"
        if comparison.worse
        else f"no form is slower than the baseline by more than {allow:.0%}"
    )
    return [*comparison.missing, *comparison.worse, verdict]
