"""What is left out of each method to see what it is worth, and the claims of the papers that this decides."""

from dataclasses import dataclass

# Options of `training/train.py` that all runs share: short, small, and what makes so few pictures suffice.
COMMON = (
    "--size", "160", "160", "--batch", "16", "--optimiser", "adamw", "--rate", "1e-3", "--backbone-rate", "0.3",
    "--freeze-levels", "2",
    "--decay", "0.05", "--schedule", "cosine", "--clip", "1", "--average", "0.98", "--augmentation", "strong",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """A network that is trained: its and its recipe's settings, other options of `training/train.py`, and on what."""

    method: str
    name: str
    network: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    sets: tuple[str, ...] = ("ecssd", "horses")

    def arguments(self) -> list[str]:
        """As options of `training/train.py`; a later one counts."""
        found = [*COMMON, *self.options]
        for option, values in (("--network", self.network), ("--recipe", self.recipe)):
            found += [option, *values] if values else []
        return found


@dataclass(frozen=True)
class Claim:
    """That `form` gives better maps than `without`.

    `study` is a method, whose trained variants they are, or names what a bundle's forms are measured on.
    """

    study: str
    text: str
    form: str
    without: str


def _multis(name: str, *network: str) -> Variant:
    return Variant("multis", name, ("width=48", "norm=true", *network), (), ("--epochs", "3"))


def _arn(name: str, *network: str) -> Variant:
    return Variant("arn", name, ("width=64", "norm=true", *network), (), ("--epochs", "3"))


def _gicd(name: str, *network: str, jigsaw: float = 0.5) -> Variant:
    recipe = ("classes=classifier", "most=8", "cache=2", "bce=1", f"jigsaw={jigsaw}")
    options = ("--epochs", "4", "--batch", "2", "--backbone-rate", "0", "--average", "0.95")
    return Variant("gicd", name, ("norm=true", "dropout=0.3", *network), recipe, options, ("ecssd", "horses", "coseg"))


VARIANTS = (
    _multis("whole"),
    _multis("no scale weights", "scale_weights=false"),
    _multis("mean fusion", "fusion=mean"),
    _arn("whole"),
    _arn("no attention", "attention=false"),
    _arn("no recurrence", "steps=0"),
    _gicd("whole", "induction=released"),
    _gicd("no induction", "induction=off"),
    _gicd("no retaining", "induction=released", "retaining=false"),
    _gicd("no jigsaw", "induction=released", jigsaw=0),
)

CLAIMS = (
    Claim("multis", "Predicted scale weights make better maps.", "whole", "no scale weights"),
    Claim("multis", "Maxout fusion is better than the mean of the scales.", "whole", "mean fusion"),
    Claim("arn", "Self-attention makes better maps.", "whole", "no attention"),
    Claim("arn", "Recurrent convolutions make better maps.", "whole", "no recurrence"),
    Claim("gicd", "Gradient induction (GIM) makes better maps.", "whole", "no induction"),
    Claim("gicd", "Attention retaining (ARM) makes better maps.", "whole", "no retaining"),
    Claim("gicd", "Jigsaw training makes better maps.", "whole", "no jigsaw"),
    Claim("lps, contrast maps", "Weak detectors are promoted.", "T = 1", "T = 0"),
    Claim("lps, CSNet's maps", "Strong detectors are promoted.", "T = 1", "T = 0"),
    Claim("lps, contrast maps", "Iterating promotes further (weak detectors).", "T = 3", "T = 1"),
    Claim("lps, CSNet's maps", "Iterating promotes further (strong detectors).", "T = 3", "T = 1"),
    Claim(
        "cgd", "Descent in steps finds more than one gradient.", "clamped, raw", "plain gradients (T = 1), raw"
    ),
    Claim("cgd", "Clamping the other classes helps.", "clamped, raw", "unclamped, raw"),
    Claim("cgd", "Superpixels make better maps.", "clamped, smoothed", "clamped, raw"),
    Claim(
        "cgd", "Low-level contrast refines the maps.", "clamped, refined (preset default)", "clamped, smoothed"
    ),
)  # fmt: skip
