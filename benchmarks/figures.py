"""Write measured figures into README.md and benchmarks/README.md, so that none of them is typed by hand.

    python -m benchmarks.figures            # rewrite the blocks that differ
    python -m benchmarks.figures --check    # name them instead, and exit with 1

A block stands between `<!-- figures: NAME -->` and `<!-- end -->`; `FIGURES` says which files of benchmarks/results it
is made of, and how.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import figure_texts as texts
from benchmarks import gpu_texts, latency_texts, mask_texts, quality_texts, speed_texts
from salience.runtime.errors import DataError
from salience.runtime.files import write_atomic

PAGES = ("README.md", "benchmarks/README.md")
RESULTS = Path("benchmarks/results")
_BLOCK = re.compile(r"<!-- figures: (\S+) -->\n(.*?)<!-- end -->", flags=re.DOTALL)
_START = re.compile(r"<!-- figures:")


@dataclass(frozen=True)
class Figure:
    """A block: `make` makes its text of the files of results that are named, in that order."""

    make: Callable[..., str]
    sources: tuple[str, ...]


FIGURES = {
    "ablations": Figure(texts.ablations, ("ablations",)),
    "attention_memory": Figure(texts.attention_memory, ("arn_memory",)),
    "choices": Figure(speed_texts.choices, ("choices",)),
    "curves": Figure(speed_texts.curves, ("curves",)),
    "export_gains": Figure(texts.export_gains, ("arn_memory", "lps_speed")),
    "gpu": Figure(gpu_texts.gpu, ("gpu",)),
    "group_forms": Figure(texts.group_forms, ("gicd_quality",)),
    "groups": Figure(texts.groups, ("gicd_quality",)),
    "int8_ways": Figure(quality_texts.int8_ways, ("int8_ways",)),
    "kernels": Figure(speed_texts.kernels, ("kernels",)),
    "kernel_uses": Figure(speed_texts.kernel_uses, ("kernels",)),
    "latency": Figure(latency_texts.latency, ("latency",)),
    "latency_by_method": Figure(latency_texts.latency_by_method, ("latency",)),
    "mask_maximums": Figure(mask_texts.mask_maximums, ("mask_threshold",)),
    "mask_rules": Figure(mask_texts.mask_rules, ("mask_threshold",)),
    "mask_specks": Figure(mask_texts.mask_specks, ("mask_threshold",)),
    "native_start": Figure(speed_texts.native_start, ("native_start",)),
    "photo_steps": Figure(latency_texts.photo_steps, ("latency",)),
    "object_steps": Figure(texts.object_steps, ("cgd_quality",)),
    "objects": Figure(texts.objects, ("cgd_quality",)),
    "pretrained": Figure(quality_texts.pretrained, ("quality",)),
    "promoter_rounding": Figure(texts.promoter_rounding, ("lps_speed",)),
    "promoter_speed": Figure(texts.promoter_speed, ("lps_speed",)),
    "promotion": Figure(texts.promotion, ("lps_promotion",)),
    "quality": Figure(quality_texts.quality, ("quality",)),
    "quality_by_backend": Figure(quality_texts.quality_by_backend, ("quality",)),
    "page_load": Figure(speed_texts.page_load, ("page_load",)),
    "scale_out": Figure(speed_texts.scale_out, ("scale_out",)),
    "serving": Figure(speed_texts.serving, ("serving",)),
    "throughput": Figure(speed_texts.throughput, ("throughput",)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite, or check."""
    parser = argparse.ArgumentParser(description="Figures of the README files, from benchmarks/results.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a block differs")
    parser.add_argument("--root", type=Path, default=Path(), help="of the repository")
    options = parser.parse_args(arguments)
    try:
        pages = {page: (options.root / page).read_text(encoding="utf-8") for page in PAGES}
        made = {page: fill(text, options.root / RESULTS) for page, text in pages.items()}
    except DataError as error:
        sys.exit(f"error: {error}")
    differing = [f"{page}: {name}" for page, text in pages.items() for name in changed(text, made[page])]
    if options.check:
        sys.exit(f"differ from benchmarks/results: {', '.join(differing)}" if differing else 0)
    for page, text in made.items():
        if text != pages[page]:
            write_atomic(options.root / page, text.encode())
    print("\n".join(differing) or "no figure changed")


def fill(page: str, results: Path) -> str:
    """The text of a page with every block as the results say.

    Raises:
        DataError: a block is not closed, has an unknown name, or its results are missing or of another form.
    """
    if len(_START.findall(page)) != len(_BLOCK.findall(page)):
        raise DataError("figures: a block is not closed; expected <!-- end --> before the next <!-- figures: NAME -->.")
    return _BLOCK.sub(
        lambda block: f"<!-- figures: {block[1]} -->\n\n{text_of(block[1], results)}\n\n<!-- end -->", page
    )


def text_of(name: str, results: Path) -> str:
    """What the results say for the block `name`."""
    if name not in FIGURES:
        raise DataError(f"figures: no block is called {name!r}; expected one of {', '.join(FIGURES)}.")
    figure = FIGURES[name]
    files = [results / f"{source}.json" for source in figure.sources]
    try:
        return figure.make(*(json.loads(file.read_text(encoding="utf-8")) for file in files))
    except OSError as error:
        raise DataError(
            f"figures {name}: {error.filename} cannot be read; measure it, or take the block out."
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        listed = ", ".join(map(str, files))
        raise DataError(f"figures {name}: {listed} lacks {error}; expected what its benchmark writes.") from error


def changed(old: str, new: str) -> list[str]:
    """Names of the blocks that differ."""
    return [
        name
        for (name, before), (_, after) in zip(_BLOCK.findall(old), _BLOCK.findall(new), strict=True)
        if before != after
    ]


if __name__ == "__main__":
    main()
