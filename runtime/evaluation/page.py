"""HTML of reports: one page without scripts and requests, for wide and narrow, light and dark screens."""

from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Literal


def render_page(title: str, body: str, *, images: Literal["inside", "beside"], style: str = "") -> str:
    """A whole page.

    Args:
        title: plain text, also the heading.
        body: HTML.
        images: inside the page as data, or in files beside it; the page asks for nothing else.
        style: rules after those of every page.
    """
    sources = "data:" if images == "inside" else "'self' file:"
    return _PAGE.substitute(title=escape(title), body=body, style=style, sources=sources)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under a row of column names, which may be empty; it scrolls where the screen is too narrow."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    header = f"<thead><tr>{names}</tr></thead>\n" if head else ""
    return f'<div class="table"><table>{header}<tbody>\n{_table_rows(rows)}\n</tbody></table></div>'


def details(summary: str, content: str, *, opened: bool = False) -> str:
    """HTML that a click on its summary shows and hides."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>\n{content}</details>"


def _table_rows(rows: Iterable[Sequence[str]]) -> str:
    """The first column heads its row; numbers align through the style sheet."""
    return "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(text)}</td>" for text in rest)}</tr>'
        for first, *rest in rows
    )


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src $sources; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #d0d0d0; --soft: #666; }
@media (prefers-color-scheme: dark) { :root { --line: #444; --soft: #aaa; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
.table { overflow-x: auto; margin: .5rem 0 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem 1.5rem .2rem 0; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 600; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; border-radius: 6px; }
summary { cursor: pointer; font-weight: 600; margin-top: 1.5rem; }
$style</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")
