"""What a report is made of, and how it reads as HTML and as Markdown; pictures are in the HTML alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from benchmarks.markdown_text import markdown_table
from salience.runtime.evaluation.figures import printable
from salience.runtime.evaluation.page import details, render_page, table


@dataclass(frozen=True)
class Heading:
    """`level` 2 stands in the list of contents."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table; where `summary` is not empty, HTML folds it below these words."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""


@dataclass(frozen=True)
class Pictures:
    """Files beside the page, relative, and what each shows; wide ones take a line of their own."""

    files: Sequence[tuple[str, str]]
    wide: bool = False


Block: TypeAlias = Heading | Text | Grid | Pictures

_STYLE = """\
body { max-width: 90rem; }
p, ul { max-width: 50rem; }
td { white-space: nowrap; }
td:last-child { white-space: normal; min-width: 8rem; }
tbody th { min-width: 6rem; overflow-wrap: normal; }
tbody th, thead th:first-child { position: sticky; left: 0; background: Canvas; }
h2 { border-top: 1px solid var(--line); padding-top: 1.5rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: .75rem; }
.wide { display: block; max-width: 70rem; }
"""


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """A page that asks for nothing but the pictures beside it."""
    headings = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<li><a href="#{_anchor(text)}">{escape(text)}</a></li>' for text in headings)
    body = "\n".join([f"<nav><ul>{links}</ul></nav>", *map(_html, blocks)])
    return render_page(printable(title), body, images="beside", style=_STYLE)


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same without pictures."""
    texts = [f"# {_plain(title)}", *(text for text in map(_markdown, blocks) if text)]
    return "\n\n".join(texts) + "\n"


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            anchor = f' id="{_anchor(text)}"' if level == 2 else ""
            return f"<h{level}{anchor}>{escape(printable(text))}</h{level}>"
        case Text(text):
            return f"<p>{escape(printable(text))}</p>"
        case Grid(columns, rows, summary):
            content = table(columns, [[printable(cell) for cell in row] for row in rows])
            return details(summary, content) if summary else content
        case Pictures(files, wide):
            shown = "\n".join(_picture(escape(file), escape(printable(what))) for file, what in files)
            return f'<div class="pictures{" wide" if wide else ""}">\n{shown}\n</div>'


def _picture(file: str, what: str) -> str:
    """A picture that opens at its own size."""
    return f'<a href="{file}"><img src="{file}" alt="{what}" loading="lazy"></a>'


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Grid(columns, rows, summary):
            head = f"{_plain(summary)}:\n\n" if summary else ""
            return head + markdown_table([*map(_plain, columns)], [[*map(_plain, row)] for row in rows])
        case Pictures():
            return ""


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", printable(text))


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
