"""What a model repository of Triton Inference Server and the Python model in it agree on: names, types and places."""

from dataclasses import dataclass
from typing import Literal

BUNDLE_FOLDER = "bundle"
# Of the public model's configuration, each a text.
PRECISION_PARAMETER = "precision"
DEVICE_PARAMETER = "device"

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Port:
    """An input or output of the public model; -1 in `dims` is free.

    Attributes:
        name: what clients call it.
        data_type: of Triton's model configuration; "TYPE_STRING" is what clients call BYTES.
        dims: of the whole tensor.
    """

    name: str
    data_type: Literal["TYPE_STRING", "TYPE_UINT8", "TYPE_FP32"]
    dims: tuple[int, ...]


# A port has one type, so pictures have two: encoded ones, any number of them, and the pixels of one.
IMAGE = Port("image", "TYPE_STRING", (-1,))
IMAGE_PIXELS = Port("image_pixels", "TYPE_UINT8", (-1, -1, 3))
PRIOR = Port("prior", "TYPE_STRING", (-1,))
PRIOR_PIXELS = Port("prior_pixels", "TYPE_UINT8", (-1, -1, 1))
# PNG for encoded pictures; for pixels (H, W, C), C as the kind of map has it.
SALIENCY = Port("saliency", "TYPE_STRING", (-1,))
SALIENCY_PIXELS = Port("saliency_pixels", "TYPE_UINT8", (-1, -1, -1))
CLASS = Port("class", "TYPE_STRING", (-1,))
PROBABILITY = Port("probability", "TYPE_FP32", (-1,))


def inputs_of(method: str) -> tuple[Port, ...]:
    """What the public model of a method takes, all of it optional: encoded pictures, or pixels."""
    return (IMAGE, IMAGE_PIXELS, PRIOR, PRIOR_PIXELS) if method == "lps" else (IMAGE, IMAGE_PIXELS)


def outputs_of(method: str) -> tuple[Port, ...]:
    """What it gives: `saliency` or `saliency_pixels`, and of `cgd` one class and probability for every picture."""
    return (SALIENCY, SALIENCY_PIXELS, *((CLASS, PROBABILITY) if method == "cgd" else ()))


def graph_model(name: str, graph: str) -> str:
    """The model that serves a graph of the public model `name`."""
    return f"{name}_{graph}"
