"""What a client asks for, whatever the protocol: pictures, priors and options; and what it is answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import SalienceError
from ..images import ImageSource
from ..low_level import PresetName
from ..methods.lps import EmptyPrior
from ..saliency import Kind

# More rounds change nothing, and a client may not keep the service busy at will.
MAX_ITERATIONS = 100


class QueryError(SalienceError):
    """A request that cannot be answered as it is; the client's to mend."""


class Options(BaseModel):
    """What a client may set; `target` is called "class" by clients."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False)

    kind: Kind = "map"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    iterations: Annotated[int, Field(ge=1, le=MAX_ITERATIONS)] = 1
    empty: EmptyPrior = "error"
    target: Annotated[str, Field(max_length=200)] | None = Field(default=None, alias="class")
    preset: PresetName = "default"


# Of one method alone.
_OWN = {"iterations": "lps", "empty": "lps", "class": "cgd", "preset": "cgd"}


_DEFAULTS = Options()


@dataclass(frozen=True, eq=False)
class Query:
    """Pictures of a request: encoded bytes, or arrays (H, W, 3) uint8.

    Attributes:
        images: one or more.
        priors: of `lps`, as many as images; encoded bytes, or arrays (H, W) of uint8 or float32 in [0, 1].
        options: for all of them.
    """

    images: tuple[ImageSource, ...]
    priors: tuple[ImageSource, ...] = ()
    options: Options = _DEFAULTS


@dataclass(frozen=True, eq=False)
class Answer:
    """Of one picture.

    Attributes:
        pixels: (H, W) or (H, W, C) uint8, as `SaliencyMap.render` makes it.
        png: the same, encoded; empty where the picture came as an array.
        target: the class found, of `cgd`.
        probability: of that class.
    """

    pixels: NDArray[np.uint8]
    png: bytes = b""
    target: str | None = None
    probability: float | None = None


def parse_options(values: Mapping[str, Any], method: str) -> Options:
    """Options as a client names them, checked.

    Raises:
        QueryError: one is not known, not possible, or not of this method.
    """
    foreign = sorted(name for name in values if _OWN.get(name, method) != method)
    if foreign:
        raise QueryError(f"parameter {foreign[0]}: is for {_OWN[foreign[0]]}, and the model holds {method}.")
    try:
        options = Options.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(map(str, problem["loc"]))[:100]
        known = ", ".join(field.alias or key for key, field in Options.model_fields.items())
        raise QueryError(f"parameter {name}: {problem['msg']}; known parameters: {known}.") from None
    if options.threshold is not None and options.kind != "mask":
        raise QueryError(f"parameter threshold: is for kind mask, and the kind is {options.kind}.")
    return options


def check_counts(query: Query, method: str, images: int) -> None:
    """Raise QueryError for no picture, more than `images`, or a number of priors that does not fit."""
    if not 1 <= len(query.images) <= images:
        raise QueryError(f"image: got {len(query.images)} pictures, expected 1 to {images} in one request.")
    wanted = len(query.images) if method == "lps" else 0
    if len(query.priors) != wanted:
        raise QueryError(
            f"prior: got {len(query.priors)}, expected {wanted}; a model of {method} takes {_takes(method)}."
        )


def _takes(method: str) -> str:
    return "a prior for every picture" if method == "lps" else "pictures alone"
