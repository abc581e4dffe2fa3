"""Figures as the README files print them: tables, and numbers without a leading zero."""

import textwrap
from collections.abc import Iterable, Sequence


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a line for its header and one for each row."""
    head, *body = (f"| {' | '.join(line)} |" for line in (columns, *rows))
    return "\n".join([head, f"|{'---|' * len(columns)}", *body])


def share(value: float, digits: int = 3) -> str:
    """A number as the field prints scores: .860, 1.000, -.012."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def error(value: float) -> str:
    """A mean absolute error: three digits that count, .0733 or .204."""
    return share(value, 4 if value < 0.1 else 3)


def change(value: float, digits: int = 4) -> str:
    """A signed difference: +.0012, -.0003, 0 where it rounds to nothing."""
    rounded = round(value, digits)
    return "0" if rounded == 0 else f"{'+' if rounded > 0 else ''}{share(rounded, digits)}"


def megabytes(size_bytes: float) -> str:
    """Whole megabytes, 10^6 bytes."""
    return f"{size_bytes / 1e6:.0f} MB"


def seconds(value_s: float) -> str:
    """Seconds to a hundredth."""
    return f"{share(value_s, 2)} s"


def ratio(value: float) -> str:
    """A ratio, of two digits that count: .82, 4.6, 16, 1."""
    text = f"{float(f'{value:.2g}'):g}"
    return text.removeprefix("0") if value < 1 else text


def sentences(text: str) -> str:
    """Text in lines of the README's width."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)
