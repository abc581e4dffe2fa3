"""Parts of the GPU check that measure: what the card can do, and how much of it each method gets.

Times are of the GPU where it has a timer for the form, else of the host, until the result can be used. Clocks are left
as they are.
"""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch

from benchmarks.arithmetic import operations, traffic_of
from benchmarks.forms import Call, Workload
from benchmarks.gpu_forms import Open, forms, torch_call, workload_of
from benchmarks.gpu_record import Row, Setting
from benchmarks.peers import reason
from salience.runtime.methods import METHODS

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BATCHES, QUICK_BATCHES = (1, 8, 32), (2,)
_SECONDS, _LEAST, _MOST = 0.7, 5, 200
_QUICK_SECONDS = 0.01
_SIDE, _QUICK_SIDE = 8192, 128


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each call, by the host's clock and by the GPU's events, and what the form took of its memory."""

    host_ms: tuple[float, ...]
    gpu_ms: tuple[float, ...]
    memory_bytes: int


@dataclass(frozen=True)
class Card:
    """Its best: operations a second of products by type, and bytes a second of a copy, counting reads and writes."""

    products: dict[str, float]
    copy: float

    @classmethod
    def measured(cls, setting: Setting) -> Self:
        """The fastest of some large products and copies."""
        side = _QUICK_SIDE if setting.quick else _SIDE
        products = {
            name: 2 * side**3 / _fastest(_product(side, kind, setting), setting) for name, kind in TYPES.items()
        }
        source = torch.zeros(4 * side**2, dtype=torch.uint8, device=setting.device)
        seconds = _fastest(partial(torch.empty_like(source).copy_, source), setting)
        return cls(products, 2 * source.nbytes / seconds)


def peak(setting: Setting) -> Iterator[Row]:
    """See `Card`."""
    card = Card.measured(setting)
    for name, rate in card.products.items():
        yield Row(form=f"matrix product, {name}", measure="peak", value=rate / 1e12, unit="TFLOP/s")
    yield Row(form="copy within its memory", measure="peak", value=card.copy / 1e9, unit="GB/s")


def multis(setting: Setting) -> Iterator[Row]:
    """See `speed`."""
    yield from speed("multis", setting)


def arn(setting: Setting) -> Iterator[Row]:
    """See `speed`."""
    yield from speed("arn", setting)


def lps(setting: Setting) -> Iterator[Row]:
    """See `speed`."""
    yield from speed("lps", setting)


def gicd(setting: Setting) -> Iterator[Row]:
    """See `speed`."""
    yield from speed("gicd", setting)


def cgd(setting: Setting) -> Iterator[Row]:
    """See `speed`."""
    yield from speed("cgd", setting)


def compiled(setting: Setting) -> Iterator[Row]:
    """`torch.compile` in fp16, at the largest batch alone: compiling takes most of the time."""
    batch, card = max(_batches(setting)), Card.measured(setting)
    for method in METHODS:
        workload = workload_of(method, setting)
        opened = partial(torch_call, workload, batch, "fp16", setting.device, compile_it=True)
        yield from _rows("torch.compile, fp16", opened, workload, batch, setting, card)


def speed(method: str, setting: Setting) -> Iterator[Row]:
    """PyTorch eager in fp32 and fp16, and ours in fp16: the graphs in PyTorch, and on every engine that works here.

    Ours takes network inputs from the host and leaves maps there, as a service does; inputs and outputs of plain
    PyTorch stay on the device. The largest batch comes first, should time run out.
    """
    workload, card = workload_of(method, setting), Card.measured(setting)
    for batch in sorted(_batches(setting), reverse=True):
        for name, opened in forms(workload, batch, setting).items():
            yield from _rows(name, opened, workload, batch, setting, card)


def measure(opened: Open, setting: Setting) -> Timing:
    """Open a form, warm it up, and time its calls."""
    gc.collect()
    if setting.device != "cpu":
        torch.cuda.empty_cache()
    before = _memory(setting.device)
    call = opened()
    for _ in range(3):
        call()
    _synchronize(setting.device)
    taken = _memory(setting.device) - before
    host, gpu = _times(call, setting)
    return Timing(tuple(host), tuple(gpu), max(taken, 0))


def figures(timing: Timing, pictures: int) -> dict[str, tuple[float, str]]:
    """Value and unit of each figure; the rate is of the median call."""
    p50, p99 = (float(np.percentile(timing.host_ms, share)) for share in (50, 99))
    found = {"p50": (p50, "ms"), "p99": (p99, "ms"), "speed": (1e3 * pictures / p50, "images/s")}
    if timing.gpu_ms:
        found["GPU, p50"] = (float(np.percentile(timing.gpu_ms, 50)), "ms")
    if timing.memory_bytes:
        found["memory"] = (timing.memory_bytes / 1e6, "MB")
    return found


def _rows(name: str, opened: Open, workload: Workload, batch: int, setting: Setting, card: Card) -> Iterator[Row]:
    try:
        timing = measure(opened, setting)
    # A form may fail in any library; the others are timed all the same.
    except Exception as error:
        yield Row(method=workload.method, form=name, batch=batch, measure="speed", note=reason(error))
        return
    found = figures(timing, workload.pictures(batch))
    kind = "fp32" if name.endswith("fp32") else "fp16"
    found["of the matrix peak"] = (found["speed"][0] * operations(workload, "fp16", batch) / card.products[kind], "")
    moved = traffic_of(workload, "fp16", batch) * (2 if kind == "fp32" else 1)
    found["of the copy's bandwidth"] = (moved / (found["p50"][0] / 1e3) / card.copy, "")
    for what, (value, unit) in found.items():
        yield Row(method=workload.method, form=name, batch=batch, measure=what, value=value, unit=unit)


def _times(call: Call, setting: Setting) -> tuple[list[float], list[float]]:
    """Milliseconds by host and by events of the stream that PyTorch works on."""
    host: list[float] = []
    gpu: list[float] = []
    end = time.perf_counter() + (_QUICK_SECONDS if setting.quick else _SECONDS)
    while len(host) < _LEAST or (time.perf_counter() < end and len(host) < _MOST):
        start = time.perf_counter()
        spent = _timed(call, setting.device)
        host.append(1e3 * (time.perf_counter() - start))
        if spent is not None:
            gpu.append(spent)
    return host, gpu


def _timed(call: Call, device: str) -> float | None:
    """Milliseconds between two events around the call, once its result can be used; None on the CPU."""
    if device == "cpu":
        call()
        return None
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    torch.cuda.synchronize(device)
    return float(first.elapsed_time(last))


def _product(side: int, kind: torch.dtype, setting: Setting) -> Call:
    left, right = (torch.randn(side, side, device=setting.device).to(kind) for _ in range(2))
    return partial(torch.mm, left, right, out=torch.empty_like(left))


def _fastest(call: Callable[[], object], setting: Setting) -> float:
    """Seconds of the fastest call, by the GPU's events where there are any."""
    call()
    host, gpu = _times(call, setting)
    return min(gpu or host) / 1e3


def _batches(setting: Setting) -> tuple[int, ...]:
    return QUICK_BATCHES if setting.quick else BATCHES


def _memory(device: str) -> int:
    """Bytes of the GPU's memory in use, by whomever."""
    if device == "cpu":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
