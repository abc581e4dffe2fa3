"""Parts of the GPU check about loops: what is copied in them, CUDA graphs of their steps, other libraries' tensors."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_material import Material, maps_of, prepare_scenes, relative_error, works
from benchmarks.gpu_record import Row, Setting
from benchmarks.gpu_torch import without_tf32
from benchmarks.peers import reason
from salience.runtime import ClampedDescentDetector, GroupDetector, PromoterDetector, load
from salience.runtime.backends.session import Session
from salience.runtime.detector import Detector, Prepared
from salience.runtime.low_level import Descent
from salience.runtime.methods import METHODS, cgd, lps
from salience.runtime.methods.cgd import DescentLoop
from salience.runtime.methods.lps import PreparedPair, RefineLoop

LOOPED = ("lps", "cgd", "gicd")
STEPS = 5
_BATCH = 2
# A replayed graph runs the very kernels that were captured.
_SAME = 1e-6


@dataclass
class Crossings:
    """Bytes of every tensor that crossed between host and device, in their order."""

    to_device: list[int] = field(default_factory=list)
    to_host: list[int] = field(default_factory=list)

    def clear(self) -> None:
        """Forget them."""
        self.to_device.clear()
        self.to_host.clear()


@contextmanager
def watched(kind: type[Session[Any]]) -> Iterator[Crossings]:
    """Note what sessions of this class copy while the block runs: by the calls that copy, not by our counters."""
    found = Crossings()
    upload, download = kind._upload, kind._download

    def noted_upload(session: Any, buffer: Any, array: Any) -> None:
        found.to_device.append(array.nbytes)
        upload(session, buffer, array)

    def noted_download(session: Any, buffer: Any) -> Any:
        array = download(session, buffer)
        found.to_host.append(array.nbytes)
        return array

    kind._upload, kind._download = noted_upload, noted_download  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        kind._upload, kind._download = upload, download  # type: ignore[method-assign]


def loops(setting: Setting) -> Iterator[Row]:
    """In PyTorch, and in ONNX Runtime where that has the device; its graphs must not go through the host either."""
    material = Material(setting.folder, setting.quick)
    for method in LOOPED:
        yield from _loop_rows(method, "PyTorch", material.torch_detector(method, "fp32", setting.device))
        if works("onnxruntime", setting.device):
            detector = load(material.bundle(method), backend="onnxruntime", device=setting.device, kernels="none")
            yield from _loop_rows(method, "ONNX Runtime", detector)
            yield from _node_rows(method, detector, setting)


def graphs(setting: Setting) -> Iterator[Row]:
    """The maps of captured and replayed steps beside those of the same steps one by one."""
    without_tf32()
    material = Material(setting.folder, setting.quick)
    for method in METHODS:
        plain = material.torch_detector(method, "fp32", setting.device)
        yield _captured(
            method, "PyTorch", plain,
            lambda method=method: material.torch_detector(method, "fp32", setting.device, replayed=True),  # type: ignore[misc]
        )  # fmt: skip
        if works("onnxruntime", setting.device):
            bundle = material.bundle(method)
            options: Any = {"backend": "onnxruntime", "device": setting.device, "kernels": "none"}
            yield _captured(
                method, "ONNX Runtime", load(bundle, **options),
                lambda bundle=bundle, options=options: load(bundle, cuda_graph=True, **options),  # type: ignore[misc]
            )  # fmt: skip


def arrays(setting: Setting) -> Iterator[Row]:
    """Tensors of PyTorch, and of CuPy where it is there, as inputs and outputs of a session, at the same addresses."""
    import torch

    material = Material(setting.folder, setting.quick)
    detector = load(material.bundle("multis"), backend="onnxruntime", device=setting.device, kernels="none")
    prepared, _ = prepare_scenes(detector, _BATCH)
    values = np.concatenate([member.tensor for member in prepared])
    expected = detector.engines["saliency"].run({"input": values})["saliency"]
    given = torch.from_numpy(values).to(setting.device)
    yield from _shared(
        "PyTorch", detector, given, given.data_ptr(), expected, torch.utils.dlpack.from_dlpack, _address, _host
    )
    try:
        import cupy
    except ImportError as error:
        yield Row(method="multis", form="CuPy", measure="tensors are shared", note=f"not run: {error}")
        return
    array = cupy.asarray(values)
    yield from _shared(
        "CuPy", detector, array, array.data.ptr, expected, cupy.from_dlpack, lambda a: a.data.ptr, cupy.asnumpy
    )


def _address(tensor: Any) -> int:
    return int(tensor.data_ptr())


def _host(tensor: Any) -> Any:
    return tensor.cpu().numpy()


def _shared(
    library: str,
    detector: Detector,
    given: Any,
    address: int,
    expected: Any,
    taken: Callable[[Any], Any],
    address_of: Callable[[Any], int],
    host: Callable[[Any], Any],
) -> Iterator[Row]:
    session = detector.engines["saliency"].session(_BATCH)
    session.share("input", given)
    session.run()
    first, again = taken(session.view("saliency")), taken(session.view("saliency"))
    same = address_of(first) == address_of(again) != address and session.copies.to_device == session.copies.to_host == 0
    yield Row(method="multis", form=library, measure="nothing is copied", passed=same)
    error = relative_error(host(first), expected)
    yield Row(method="multis", form=library, measure="relative error", value=error, limit=_SAME, passed=error <= _SAME)


def _node_rows(method: str, detector: Detector, setting: Setting) -> Iterator[Row]:
    """Whether a node that ONNX Runtime leaves to the CPU brings a picture there."""
    height, width = detector.bundle.manifest.input_size
    for graph in detector.graphs:
        size = largest_copy(run_with_profile(detector, graph, setting.device, setting.folder))
        yield Row(
            method=method, form=f"ONNX Runtime, {graph}", measure="largest copy between its own nodes", value=size,
            unit="bytes", limit=height * width - 1, passed=size < height * width,
        )  # fmt: skip


def _loop_rows(method: str, form: str, detector: Detector) -> Iterator[Row]:
    prepared, _ = prepare_scenes(detector, _BATCH)
    session = next(iter(detector.engines.values())).session(1)
    height, width = detector.bundle.manifest.input_size
    with watched(type(session)) as crossed:
        if isinstance(detector, GroupDetector):
            maps_of(detector, prepared, batch=1)
            # The maps themselves go to the host: one for each picture, at the very end.
            between = crossed.to_host[: -len(prepared)]
            yield Row(
                method=method, form=form, measure="largest tensor to the host before the maps", value=max(between),
                unit="bytes", limit=height * width - 1, passed=max(between) < height * width,
            )  # fmt: skip
            return
        count = _copies_of_steps(detector, prepared, crossed)
    yield Row(method=method, form=form, measure=f"copies in {STEPS} steps", value=count, limit=0, passed=count == 0)


def _copies_of_steps(detector: Detector, prepared: list[Prepared], crossed: Crossings) -> int:
    """How many tensors crossed after all had been fed."""
    images = np.concatenate([member.tensor for member in prepared])
    loop: Any
    problem: Any
    if isinstance(detector, PromoterDetector):
        priors = np.concatenate([member.prior for member in prepared if isinstance(member, PreparedPair)])
        loop, problem = RefineLoop(detector.engines, len(prepared)), lps.Problem(images, priors, STEPS)
    elif isinstance(detector, ClampedDescentDetector):
        targets = np.zeros((len(prepared), len(detector.names)), dtype=np.float32)
        loop = DescentLoop(detector.engines["descend"], len(prepared))
        problem = cgd.Problem(images, targets, Descent(iterations=STEPS))
    else:
        raise TypeError(f"{detector!r}: has no loop.")
    state = loop.init(problem)
    crossed.clear()
    while not loop.done(state):
        state = loop.step(state)
    return len(crossed.to_device) + len(crossed.to_host)


def run_with_profile(detector: Detector, graph: str, device: str, folder: Path) -> list[dict[str, Any]]:
    """What ONNX Runtime notes of a run of one graph on inputs of ones."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.enable_profiling, settings.log_severity_level = True, 3
    settings.profile_file_prefix = str(folder / f"profile-{graph}")
    index = device.partition(":")[2] or "0"
    provider: Any = "CPUExecutionProvider" if device == "cpu" else ("CUDAExecutionProvider", {"device_id": index})
    file = detector.bundle.graph_file(graph, "fp32")
    session = onnxruntime.InferenceSession(str(file), settings, providers=[provider])
    inputs = detector.engines[graph].inputs
    shapes = {name: [_BATCH if isinstance(side, str) else side for side in spec.shape] for name, spec in inputs.items()}
    session.run(None, {name: np.ones(shape, inputs[name].dtype) for name, shape in shapes.items()})
    events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def largest_copy(events: Iterable[dict[str, Any]]) -> int:
    """Bytes of the largest tensor that a node added by ONNX Runtime brings from one device to another."""
    nodes = [event.get("args", {}) for event in events]
    return max((int(node["output_size"]) for node in nodes if node.get("op_name", "").startswith("Memcpy")), default=0)


def _captured(method: str, form: str, plain: Detector, opened: Callable[[], Detector]) -> Row:
    name = f"{form}, CUDA graph"
    prepared, _ = prepare_scenes(plain, _BATCH)
    expected = _steps(plain, prepared)
    try:
        replayed = opened()
        # Twice: the first time captures, the second only replays.
        found = [_steps(replayed, prepared) for _ in range(2)]
    # Of any library; the others go on.
    except Exception as error:
        return Row(method=method, form=name, measure="runs", passed=False, note=reason(error))
    worst = max(relative_error(maps, expected) for maps in found)
    return Row(method=method, form=name, measure="relative error", value=worst, limit=_SAME, passed=worst <= _SAME)


def _steps(detector: Detector, prepared: list[Prepared]) -> Any:
    """Maps by sessions, which are what captures; `multis` and `arn` have no loop, so theirs are run here."""
    if "saliency" not in detector.engines:
        return maps_of(detector, prepared, batch=len(prepared))
    session = detector.engines["saliency"].session(len(prepared))
    for _ in range(STEPS):
        session.feed("input", np.concatenate([member.tensor for member in prepared]))
        session.run()
    return session.read("saliency")
