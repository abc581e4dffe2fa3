"""What a bundle says of itself: `manifest.json` and `verification.json`, the contract of export and runtime."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FORMAT_VERSION: Literal[1] = 1
MANIFEST_FILE = "manifest.json"
VERIFICATION_FILE = "verification.json"
# Graphs that bring pictures and maps to the network's size and back; always run by ONNX Runtime on the CPU.
HOST_GRAPHS = ("preprocess", "prior", "postprocess")

DataType = Literal["float32", "float16", "uint8", "int32", "int64", "bool"]
# What the weights are stored in and what is computed in; "fp16-weights" computes in fp32, and in "int8" the layers
# that need it are fp32.
Precision = Literal["fp32", "fp16", "fp16-weights", "bf16", "int8"]


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or path.name != name:
        raise ValueError(f"{name!r} is not a plain file name; a bundle's files may not leave its folder")
    return name


FileName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_inside)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Model):
    """Name, type and shape of one input or output; a string in `shape` is a dimension free at run time."""

    name: str
    dtype: DataType
    shape: tuple[int | str, ...]

    def mismatch(self, array: NDArray[Any]) -> str | None:
        """Why `array` does not fit, or None if it does."""
        fits = array.ndim == len(self.shape) and all(
            isinstance(want, str) or want == got for want, got in zip(self.shape, array.shape, strict=True)
        )
        if fits and array.dtype == np.dtype(self.dtype):
            return None
        return f"{self.name}: got {array.dtype} {array.shape}, expected {self}"

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class FileEntry(_Model):
    """Size and SHA-256 of one file of the bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class GraphEntry(_Model):
    """One graph: its interface, and the ONNX file of each precision.

    `inputs` and `outputs` are those of the fp32 file; in the fp16 file the tensors of `half` are float16. NumPy has no
    bfloat16, so a bf16 file has the interface of the fp32 one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[Precision, FileName] = Field(min_length=1)
    half: tuple[str, ...] = ()

    def at(self, precision: Precision) -> Self:
        """With the types of the file of `precision`."""
        if precision != "fp16" or not self.half:
            return self
        inputs, outputs = (
            tuple(s.model_copy(update={"dtype": "float16"}) if s.name in self.half else s for s in specs)
            for specs in (self.inputs, self.outputs)
        )
        return self.model_copy(update={"inputs": inputs, "outputs": outputs})


class EngineEntry(_Model):
    """A compiled engine: a cache of one graph for one builder version and target.

    `targets` are CUDA compute capabilities such as "8.6"; `profile` gives the smallest, best and largest
    batch; `build_s` and `bytes` are what building took and left.
    """

    graph: str
    precision: Precision
    builder: Literal["tensorrt", "tensorrt-rtx"]
    builder_version: str
    targets: tuple[str, ...]
    profile: tuple[int, int, int]
    file: FileName
    build_s: float
    bytes: int


class Timing(_Model):
    """Median time from a decoded picture to its map, by `threads` of one backend on the CPU."""

    precision: Precision
    backend: str
    threads: int = Field(ge=1)
    milliseconds: float = Field(ge=0)


class Tuning(_Model):
    """What `load` chooses the engine by: times of `rounds` calls on a machine with so many `cores`."""

    cores: int = Field(ge=1)
    rounds: int
    timings: tuple[Timing, ...]

    def best(self, precision: Precision) -> dict[str, int]:
        """The backends, the fastest first, each with the threads that it is fastest with."""
        found: dict[str, int] = {}
        for timing in sorted(self.timings, key=lambda timing: timing.milliseconds):
            if timing.precision == precision:
                found.setdefault(timing.backend, timing.threads)
        return found


class Manifest(_Model):
    """Everything that the runtime needs to serve a bundle, and where it comes from.

    `input_size` is the network's (height, width). `graphs` holds those of `HOST_GRAPHS` that the method needs, and
    the method's own; `files` lists every file but the manifest itself; `classes` are the names of the classes that
    the method tells apart, in the order of its logits; `tuning` is there where engines were compared by speed.
    """

    format_version: Literal[1] = FORMAT_VERSION
    method: str
    created: str
    input_size: tuple[int, int]
    default_precision: Precision
    graphs: dict[str, GraphEntry]
    engines: tuple[EngineEntry, ...] = ()
    files: dict[FileName, FileEntry]
    classes: tuple[str, ...] = ()
    tuning: Tuning | None = None
    provenance: dict[str, Any]


class TensorCheck(_Model):
    """One comparison of a graph with PyTorch: `max_abs` is the largest error, `relative` the norm of the error
    over the norm of what was expected (for `preprocess` and `postprocess` the largest error over their
    range of 1); `tolerance` bounds the latter.
    """

    graph: str
    precision: Precision
    backend: str
    batch: int
    inputs: str
    max_abs: float
    relative: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Within the tolerance; NaN is not."""
        return self.relative <= self.tolerance


class MetricCheck(_Model):
    """Scores of PyTorch's maps and of a backend's on the same real images; `tolerance` bounds both changes, or with
    `worse_only` how much worse each may be.
    """

    precision: Precision
    backend: str
    images: int
    f_max_reference: float
    f_max: float
    mae_reference: float
    mae: float
    tolerance: float
    worse_only: bool = False

    @property
    def passed(self) -> bool:
        """Both changes within the tolerance; NaN is not."""
        worse = (self.f_max_reference - self.f_max, self.mae - self.mae_reference)
        return all((change if self.worse_only else abs(change)) <= self.tolerance for change in worse)


class Approximation(_Model):
    """What an option that trades accuracy costs: the change of PyTorch's maps in [0, 1] on `inputs`.

    `kept` says in words what is left, `max_abs` is the largest change of a pixel, `mean_abs` the mean.
    """

    option: str
    kept: str
    inputs: str
    max_abs: float
    mean_abs: float


class LayerChange(_Model):
    """What one layer in int8, all others in fp32, changes: `relative` is the norm of the change of the maps over
    that of the maps, on the engine where it is largest, None where all layers together changed little enough. `kept`:
    it stays fp32.
    """

    graph: str
    layer: str
    relative: float | None
    multiply_adds: int
    kept: bool


class Trial(_Model):
    """The change of max F and MAE on one backend with `kept` layers in fp32, and its standard error.

    The error says how far the change of other pictures may be from that of these.
    """

    kept: int
    backend: str
    f_change: float
    mae_change: float
    f_error: float
    mae_error: float


class Quantization(_Model):
    """How the int8 layers were chosen.

    `calibrated` pictures gave the ranges, `corrected` of them the biases, `tuned` others the changes: the 90 %
    interval of each had to be within `limit`.
    """

    calibrated: int
    corrected: int
    tuned: int
    limit: float
    layers: tuple[LayerChange, ...]
    trials: tuple[Trial, ...]

    @property
    def kept_share(self) -> float:
        """The part of the layers' multiply-adds that stays fp32: the price of accuracy."""
        total = sum(layer.multiply_adds for layer in self.layers)
        return sum(layer.multiply_adds for layer in self.layers if layer.kept) / max(total, 1)


class Verification(_Model):
    """The content of `verification.json`."""

    passed: bool
    tensors: tuple[TensorCheck, ...]
    metrics: tuple[MetricCheck, ...] = ()
    approximations: tuple[Approximation, ...] = ()
    quantization: Quantization | None = None
