"""Parts of the GPU check that measure: what the card can do, and how much of it each method gets.

Times are of the GPU where it has a timer for the form, else of the host, until the result can be used. Clocks are left
as they are.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Self

import numpy as np
import torch

from benchmarks.arithmetic import operations, traffic_of
from benchmarks.forms import Call, Workload
from benchmarks.gpu_forms import Open, forms, plain_calls, workload_of
from benchmarks.gpu_record import Row, Setting
from benchmarks.peers import reason
from salience.runtime.methods import METHODS

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# The largest first, should time run out.
BATCHES, QUICK_BATCHES = (32, 8, 1), (2,)
_SECONDS, _LEAST, _MOST = 0.7, 5, 200
_QUICK_SECONDS = 0.01
_SIDE, _QUICK_SIDE = 8192, 128


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


def compiled(setting: Setting) -> Iterator[Row]:
    """`torch.compile` in fp16, at the largest batch alone: compiling takes most of the time."""
    card = Card.measured(setting)
    for method in METHODS:
        workload = workload_of(method, setting)
        opened = partial(plain_calls, workload, "fp16", setting.device, compile_it=True)
        yield from _rows("torch.compile, fp16", opened, workload, _batches(setting)[:1], setting, card)


def speed(method: str, setting: Setting) -> Iterator[Row]:
    """PyTorch eager in fp32 and fp16, and ours in fp16: on every engine that works here, and the graphs in PyTorch.

    Ours takes network inputs from the host and leaves maps there, as a service does; inputs and outputs of plain
    PyTorch stay on the device.
    """
    workload, card = workload_of(method, setting), Card.measured(setting)
    for name, opened in forms(workload, setting).items():
        yield from _rows(name, opened, workload, _batches(setting), setting, card)


multis, arn, lps, gicd, cgd = (partial(speed, method) for method in ("multis", "arn", "lps", "gicd", "cgd"))


def _rows(
    name: str, opened: Open, workload: Workload, batches: Sequence[int], setting: Setting, card: Card
) -> Iterator[Row]:
    """Of one form, at the largest batch first: that is when its memory is looked at."""
    _give_back(setting)
    before = _memory(setting.device)
    batch = batches[0]
    try:
        call_of = opened()
        for batch in batches:
            call = call_of(batch)
            for _ in range(3):
                _timed(call, setting.device)
            memory = _memory(setting.device) - before if batch == batches[0] else 0
            figures = _figures(*_times(call, setting), workload.pictures(batch), memory)
            figures |= _shares(figures, workload, batch, card, kind="fp32" if name.endswith("fp32") else "fp16")
            for measure, (value, unit) in figures.items():
                yield Row(method=workload.method, form=name, batch=batch, measure=measure, value=value, unit=unit)
    # A form may fail in any library; the others are timed all the same.
    except Exception as error:
        yield Row(method=workload.method, form=name, batch=batch, measure="speed", note=reason(error))


def _figures(host: list[float], gpu: list[float], pictures: int, memory: int) -> dict[str, tuple[float, str]]:
    """Value and unit of each figure, of milliseconds by two clocks; the rate is of the median call."""
    p50, p99 = (float(np.percentile(host, share)) for share in (50, 99))
    found = {"p50": (p50, "ms"), "p99": (p99, "ms"), "speed": (1e3 * pictures / p50, "images/s")}
    if gpu:
        found["GPU, p50"] = (float(np.percentile(gpu, 50)), "ms")
    if memory > 0:
        found["memory"] = (memory / 1e6, "MB")
    return found


def _shares(
    figures: dict[str, tuple[float, str]], workload: Workload, batch: int, card: Card, *, kind: str
) -> dict[str, tuple[float, str]]:
    """Of what the card does at its best."""
    computed, moved = _work(workload, batch)
    moved *= 2 if kind == "fp32" else 1  # counted in fp16
    return {
        "of the matrix peak": (figures["speed"][0] * computed / card.products[kind], ""),
        "of the copy's bandwidth": (1e3 * moved / figures["p50"][0] / card.copy, ""),
    }


@cache
def _work(workload: Workload, batch: int) -> tuple[int, int]:
    """Operations of a picture, and bytes of a call."""
    return operations(workload, "fp16", batch), traffic_of(workload, "fp16", batch)


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


def _give_back(setting: Setting) -> None:
    """What the form before has left."""
    gc.collect()
    if setting.device != "cpu":
        torch.cuda.empty_cache()
