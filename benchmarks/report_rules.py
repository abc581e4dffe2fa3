"""Where the report draws its lines: every threshold that stands behind its words, and the sentences that tell them."""

from dataclasses import dataclass
from math import pi
from typing import Literal

from benchmarks.markdown_text import share

# Of the mask: connected pieces smaller than this are specks, no objects.
SPECK = 0.01
# Map values between these say neither object nor background.
SOFT_VALUES = (0.2, 0.8)
SOFT_SHARE = 0.25
MISSED_RECALL = 0.3
PART_RECALL = 0.7
OBJECT_RECALL = 0.5
TAKEN_PRECISION = 0.6
# Beyond this quantile of the set's pictures, or below its counterpart, an attribute is unusual.
UNUSUAL = 0.9
# Standard errors that a rank correlation is from 0 before it is told: chance has 1 in 100 beyond.
CLEAR_ERRORS = 2.58
WORST = 10
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Attribute:
    """What is measured of a picture and its mask.

    Attributes:
        name: in the JSON file.
        title: in tables.
        meaning: how it is measured.
        low, high: words for what is unusually low or high, empty where that makes no picture harder.
        classes: how pictures are told apart by it.
    """

    name: str
    title: str
    meaning: str
    low: str = ""
    high: str = ""
    classes: Literal["terciles", "yes or no", "one or more"] = "terciles"


ATTRIBUTES = (
    Attribute("area", "object area", "part of the picture", low="small object", high="large object"),
    Attribute("objects", "number of objects", f"connected pieces of the mask, of at least {share(SPECK, 2)} of it",
              high="many objects", classes="one or more"),
    Attribute("border", "touches the border", "the mask holds a pixel at the picture's edge",
              high="touches the border", classes="yes or no"),
    Attribute("distance", "distance from the centre", "mask's centre to picture's centre, in half diagonals",
              high="far from the centre"),
    Attribute("contrast", "colour contrast", "distance of the mean LAB colours of object and background",
              low="little colour contrast"),
    Attribute("complexity", "boundary complexity", f"perimeter² / area; {4 * pi:.1f} for a disc",
              high="ragged outline"),
    Attribute("clutter", "background clutter", "mean Sobel gradient of the grey picture in [0, 1] beside the object",
              high="busy background"),
)  # fmt: skip

MISSED, PART, TAKEN, SOFT = "object missed", "part missing", "background taken", "soft"
KINDS = {
    MISSED: f"recall below {share(MISSED_RECALL, 2)}",
    PART: f"recall from {share(MISSED_RECALL, 2)} to {share(PART_RECALL, 2)}, or one of several objects with "
    f"recall below {share(OBJECT_RECALL, 2)}",
    TAKEN: f"precision below {share(TAKEN_PRECISION, 2)}",
    SOFT: f"map values between {share(SOFT_VALUES[0], 1)} and {share(SOFT_VALUES[1], 1)} on more than "
    f"{share(SOFT_SHARE, 2)} of the picture",
}


def rule_sentences() -> list[str]:
    """What a reader has to know of the thresholds."""
    tail = f"{(1 - LEVEL) / 2:.1%}".replace(".0", "")
    return [
        "Every map is stretched to all of [0, 1] before it is scored. F at the fixed threshold, recall and precision "
        "of a picture are taken at the threshold of the row's max F.",
        f"Intervals hold {LEVEL:.0%} of {RESAMPLES} bootstrap samples of the pictures ({tail} cut off at either end); "
        "differences are of the same samples of the same pictures. They say nothing of another training run.",
        f"Kinds of failure, of which a picture may have several: {'; '.join(f'{k}: {v}' for k, v in KINDS.items())}.",
        f"Attributes: {'; '.join(f'{a.title}: {a.meaning}' for a in ATTRIBUTES)}. An attribute is unusual beyond the "
        f"{UNUSUAL:.0%} quantile of the set's pictures (below the {1 - UNUSUAL:.0%} quantile where low is hard).",
        f"A rank correlation (Spearman) is told where it is {CLEAR_ERRORS} standard errors, 1/√(n - 1) each, from 0.",
    ]
