"""What `latency` times: a method in one form, at a batch and with some threads, as a call on prepared network inputs.

Nothing here loads PyTorch, so that a new process can be measured without it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from salience.runtime import ClampedDescentDetector, GroupDetector, PromoterDetector, load
from salience.runtime.detector import Detector, Prepared
from salience.runtime.low_level import Descent
from salience.runtime.methods.gicd import GroupPass
from salience.runtime.methods.lps import PreparedPair

Kind = Literal["salience", "eager", "compile", "export"]
Call: TypeAlias = "Callable[[], object]"
Floats: TypeAlias = "NDArray[np.float32]"


@dataclass(frozen=True)
class Form:
    """One way to compute a method.

    Attributes:
        kind: our runtime on a bundle, PyTorch as it is or compiled, or what `torch.onnx.export` leaves of it.
        batch: pictures in a call of the engine.
        threads: of that call.
        backend: of our runtime and of what was exported.
        precision: "fp32", of our runtime also a bundle's other ones; what is exported may also leave the "default" of
            the backend, which OpenVINO chooses by the CPU.
    """

    kind: Kind
    batch: int
    threads: int
    backend: str = ""
    precision: str = "fp32"

    @property
    def name(self) -> str:
        """In words, without batch and threads."""
        match self.kind:
            case "salience":
                return f"salience, {self.backend} {self.precision}"
            case "eager":
                return "PyTorch eager"
            case "compile":
                return "torch.compile"
            case "export":
                return f"torch.onnx.export, {self.backend} {self.precision}"


@dataclass(frozen=True)
class Workload:
    """What every form of one method computes, and the folder with its network.

    Attributes:
        method: its name.
        backbone: vgg16 or mobilenet_v2.
        size: of the network input, (height, width).
        folder: holds the checkpoint, a bundle for each precision, and what PyTorch exports.
        iterations: T of `lps` and `cgd`.
        group: pictures in a group of `gicd`, more where the batch is larger.
    """

    method: str
    backbone: str
    size: tuple[int, int]
    folder: Path
    iterations: int = 10
    group: int = 4

    @property
    def checkpoint(self) -> Path:
        """The network, with random weights."""
        return self.folder / "network.safetensors"

    def bundle(self, precision: str) -> Path:
        """The bundle of one precision."""
        return self.folder / f"bundle-{precision}"

    def exported(self, batch: int) -> Path:
        """What `torch.onnx.export` makes of the plain network, for inputs of this batch."""
        return self.folder / f"plain-{batch}.onnx"

    def pictures(self, batch: int) -> int:
        """In one call."""
        return max(self.group, batch) if self.method == "gicd" else batch

    def inputs(self, batch: int) -> tuple[Floats, ...]:
        """Network inputs (N, 3, h, w) of noise; for `lps` also priors (N, 1, h, w), a soft box in each."""
        count, rng = self.pictures(batch), np.random.default_rng(0)
        if self.method == "cgd":
            return (rng.uniform(0, 255, (count, 3, *self.size)).astype(np.float32),)
        images = rng.standard_normal((count, 3, *self.size), dtype=np.float32)
        if self.method != "lps":
            return (images,)
        priors = np.full((count, 1, *self.size), 0.1, dtype=np.float32)
        priors[:, :, self.size[0] // 4 : self.size[0] // 2, self.size[1] // 4 : self.size[1] // 2] = 0.9
        return images, priors

    def prepared(self, batch: int) -> list[Prepared]:
        """The same, as a detector's `prepare` leaves them."""
        images, *priors = self.inputs(batch)
        blank = np.zeros((*self.size, 3), dtype=np.uint8)
        rows = [images[index : index + 1] for index in range(len(images))]
        if not priors:
            return [Prepared(blank, row) for row in rows]
        return [PreparedPair(blank, row, priors[0][index : index + 1]) for index, row in enumerate(rows)]


class OurForms:
    """Opens forms of our runtime on a workload; forms that differ in the batch share a detector."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._detectors: dict[Form, Detector] = {}

    def open(self, form: Form) -> Call:
        """The engine part as serving runs it.

        Raises:
            SalienceError: there is no such bundle, or it cannot run here.
        """
        key = replace(form, batch=1)
        if key not in self._detectors:
            backend: Any = form.backend
            precision: Any = form.precision
            bundle = self.workload.bundle(form.precision)
            self._detectors[key] = load(bundle, backend=backend, precision=precision, threads=form.threads)
        return engine_call(self._detectors[key], self.workload, form.batch)


def engine_call(detector: Detector, workload: Workload, batch: int) -> Call:
    """What `detector` does with prepared inputs, by its method."""
    prepared, iterations = workload.prepared(batch), workload.iterations
    if isinstance(detector, PromoterDetector):
        pairs = [pair for pair in prepared if isinstance(pair, PreparedPair)]
        return lambda: detector.refine(pairs, iterations)
    if isinstance(detector, ClampedDescentDetector):
        return lambda: detector.descend(prepared, [None] * len(prepared), Descent(iterations=iterations))
    if isinstance(detector, GroupDetector):
        return lambda: list(GroupPass(detector, prepared.__getitem__, len(prepared), batch=batch).maps())
    return lambda: detector.infer(prepared)
