"""The first part of the GPU check: it builds what the others share, side by side, as each bundle takes one core."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from benchmarks.gpu_forms import workload_of
from benchmarks.gpu_material import Material
from benchmarks.gpu_record import Row, Setting
from salience.runtime.backends.engine import available_cores
from salience.runtime.manifest import Precision
from salience.runtime.methods import METHODS

SPEED = "random weights, fp16"
_SHARED: tuple[Precision, ...] = ("fp32", "fp16")
# A network of VGG16 takes 2 GB while it is exported.
_WORKERS = 8


def prepare(setting: Setting) -> Iterator[Row]:
    """Bundles of the networks that are compared, and of those that are timed."""
    # Of several processes each would write the classifier.
    Material(setting.folder, setting.quick).checkpoint("cgd")
    kinds = (*_SHARED, SPEED)
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(_WORKERS, available_cores()), mp_context=spawning) as pool:
        building = {pool.submit(build, method, kind, setting): (method, kind) for kind in kinds for method in METHODS}
        for future in as_completed(building):
            method, kind = building[future]
            yield Row(method=method, form=f"bundle, {kind}", measure="built in", value=future.result(), unit="s")


def build(method: str, kind: str, setting: Setting) -> float:
    """Seconds that one bundle took."""
    start = time.perf_counter()
    if kind == SPEED:
        workload_of(method, setting)
    else:
        Material(setting.folder, setting.quick).bundle(method, kind)  # type: ignore[arg-type]
    return time.perf_counter() - start
