"""The page of the service: its weight, and the time from opening it to the first map.

    python -m benchmarks.page_load --json page_load.json

Chromium without a window opens the page of a service of the packaged network in a new context each round, so that
nothing is cached, and chooses the first example as soon as there is one.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.evidence import Evidence
from benchmarks.run_record import Row, Run
from benchmarks.serving import PORT, service
from salience.runtime.bundle import DEFAULT_BUNDLE

_CHROMIUM = "/usr/bin/chromium"


class PageRow(Row):
    """Medians over the rounds.

    Attributes:
        bytes: of all files of the page, as they are sent.
        files: how many these are.
        usable_ms: from opening the page until its models and examples are there.
        first_map_ms: from choosing an example until its map is shown.
    """

    bytes: int
    files: int
    usable_ms: float
    first_map_ms: float


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Weight and speed of the page.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    evidence = Evidence.gather()
    found = measure(options.rounds)
    Console().print(found)
    if options.json:
        Run[PageRow](rounds=options.rounds, evidence=evidence, rows=(found,)).write(options.json)


def measure(rounds: int) -> PageRow:
    """The row; the first round, in which the browser starts, does not count."""
    from playwright.sync_api import sync_playwright

    with service(DEFAULT_BUNDLE), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        visits = [visit(browser) for _ in range(rounds + 1)][1:]
        browser.close()
    files, sizes, usable, first = zip(*visits, strict=True)
    return PageRow(
        bytes=max(sizes), files=max(files), usable_ms=statistics.median(usable), first_map_ms=statistics.median(first)
    )


def visit(browser: Any) -> tuple[int, int, float, float]:
    """Files, bytes and times of one visit."""
    context = browser.new_context()
    page, sizes = context.new_page(), list[int]()
    page.on("requestfinished", lambda request: sizes.append(static_bytes(request)))
    start = time.perf_counter()
    page.goto(f"http://127.0.0.1:{PORT}/")
    example = page.get_by_role("button", name="Example").first
    example.wait_for()
    usable = time.perf_counter()
    example.click()
    page.locator(".card[data-state=done]").wait_for()
    shown = time.perf_counter()
    context.close()
    static = [size for size in sizes if size]
    return len(static), sum(static), 1000 * (usable - start), 1000 * (shown - usable)


def static_bytes(request: Any) -> int:
    """Of the body, 0 for what is no file of the page."""
    if "/api/" in request.url or not request.url.startswith("http"):
        return 0
    return int(request.response().headers["content-length"])


if __name__ == "__main__":
    main()
