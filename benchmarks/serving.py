"""A service under load: latency and throughput at 50, 90 and 200 % of what it can do, beside the engine alone.

    python -m benchmarks.serving --json serving.json

The service of a bundle runs in a process of its own, on the same cores as the clients. What it can do is measured by
clients that ask again as soon as they are answered, in turns with the bare engine on prepared pictures.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from benchmarks.evidence import Evidence
from benchmarks.forms import Workload
from benchmarks.networks import write_bundle, write_checkpoint
from benchmarks.run_record import Row, Run
from benchmarks.serving_client import Outcome, closed_loop, open_loop
from salience.runtime import load
from salience.runtime.backends.engine import available_cores
from salience.runtime.bundle import DEFAULT_BUNDLE

PORT = 18_080
_CODE = "from salience.runtime.cli import main; main()"
_SHARES = (0.5, 0.9, 2.0)
_QUEUE = 32


class LoadRow(Row):
    """One network under one load.

    Attributes:
        network: what was served.
        load: share of the capacity that was asked for; 0 is the measurement of the capacity itself.
        seconds: of asking.
        asked: requests.
        accepted: answered with a map.
        refused: answered with 503.
        failed: anything else.
        images_per_s: maps a second.
        engine_per_s: the bare engine's, in turns with the capacity; 0 in the other rows.
        p50_ms: of the accepted, from when they were due.
        p99_ms: the same.
        memory_before_bytes: of the service, after a tenth of the time.
        memory_after_bytes: at the end.
    """

    network: str
    load: float
    seconds: float
    asked: int
    accepted: int
    refused: int
    failed: int
    images_per_s: float
    engine_per_s: float
    p50_ms: float
    p99_ms: float
    memory_before_bytes: int
    memory_after_bytes: int


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="A service under load.")
    parser.add_argument("--rounds", type=int, default=3, help="of capacity and bare engine in turns")
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--endurance", type=float, default=600, help="seconds of the last load")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    evidence, rows = Evidence.gather(), list[LoadRow]()
    with tempfile.TemporaryDirectory() as name:
        bundles = {"vgg16": vgg16_bundle(Path(name) / "vgg16"), "packaged": DEFAULT_BUNDLE}
        for network, bundle in bundles.items():
            endurance = options.endurance if network == "packaged" else options.seconds
            rows += measure(network, bundle, options.rounds, options.seconds, endurance)
    record = Run[LoadRow](rounds=options.rounds, evidence=evidence, rows=tuple(rows))
    Console().print(table(record))
    if options.json:
        record.write(options.json)


def vgg16_bundle(folder: Path) -> Path:
    """`multis` of the paper's size, random weights, fp32."""
    workload = Workload("multis", "vgg16", (224, 224), folder)
    folder.mkdir()
    write_checkpoint(workload)
    write_bundle(workload, "fp32", folder)
    return workload.bundle("fp32")


def photograph() -> bytes:
    """A JPEG file of 400 x 300 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(data.chelsea()).resize((400, 300)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure(network: str, bundle: Path, rounds: int, seconds: float, endurance: float) -> list[LoadRow]:
    """The rows of one network."""
    picture, url = photograph(), f"http://127.0.0.1:{PORT}/api/predict/m"
    with service(bundle) as process:
        closed_loop(url, picture, 8, 3)
        bare, full = [], []
        for _ in range(rounds):
            bare.append(engine_rate(bundle, picture, seconds / 2))
            full.append(closed_loop(url, picture, 8, seconds / 2))
        capacity = statistics.median(outcome.rate for outcome in full)
        middle = min(full, key=lambda outcome: abs(outcome.rate - capacity))
        rows = [row(network, 0, middle, (0, 0), statistics.median(bare))]
        for share in _SHARES:
            length = endurance if share == _SHARES[-1] else seconds
            with memory_of(process, length) as memory:
                outcome = open_loop(url, picture, share * capacity, length)
            rows.append(row(network, share, outcome, (memory[0], resident_bytes(process)), 0))
    return rows


def engine_rate(bundle: Path, picture: bytes, seconds: float) -> float:
    """Pictures a second of the engine alone, by as many calls at once as the service makes."""
    calls = available_cores()
    detector = load(bundle, threads=1)
    prepared = [detector.prepare(picture)]
    detector.infer(prepared)
    end, done = time.monotonic() + seconds, []

    def work() -> None:
        while time.monotonic() < end:
            detector.infer(prepared)
            done.append(1)

    start = time.monotonic()
    with ThreadPoolExecutor(calls) as pool:
        for future in [pool.submit(work) for _ in range(calls)]:
            future.result()
    return len(done) / (time.monotonic() - start)


@contextmanager
def service(bundle: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service of one bundle in a process of its own, ready."""
    command = [
        sys.executable,
        "-c",
        _CODE,
        "serve",
        "--bundle",
        f"m={bundle}",
        "--port",
        str(PORT),
        "--grpc-port",
        "0",
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--queue", str(_QUEUE)], stdout=log, stderr=log)  # noqa: S603
        try:
            _wait_ready(process)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _wait_ready(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2/health/ready", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the service ended with {process.returncode}")


@contextmanager
def memory_of(process: subprocess.Popen[bytes], seconds: float) -> Iterator[list[int]]:
    """The memory of a process after a tenth of `seconds`."""
    found = [0]

    def look() -> None:
        found[0] = resident_bytes(process)

    timer = threading.Timer(seconds / 10, look)
    timer.start()
    yield found
    timer.join()


def resident_bytes(process: subprocess.Popen[bytes]) -> int:
    """Of a process (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def row(network: str, load_share: float, outcome: Outcome, memory: tuple[int, int], engine: float) -> LoadRow:
    """The row of a run."""
    asked = outcome.statuses.total()
    accepted, refused = outcome.statuses[200], outcome.statuses[503]
    return LoadRow(
        network=network, load=load_share, seconds=outcome.seconds, asked=asked, accepted=accepted, refused=refused,
        failed=asked - accepted - refused, images_per_s=outcome.rate, engine_per_s=engine,
        p50_ms=outcome.percentile_ms(0.5), p99_ms=outcome.percentile_ms(0.99),
        memory_before_bytes=memory[0], memory_after_bytes=memory[1],
    )  # fmt: skip


def table(record: Run[LoadRow]) -> Table:
    """For people."""
    found = Table(
        "network", "load", "asked", "accepted", "503", "failed", "maps/s", "engine/s", "p50 ms", "p99 ms", "MB"
    )
    for each in record.rows:
        memory = f"{each.memory_before_bytes / 1e6:.0f} -> {each.memory_after_bytes / 1e6:.0f}"
        numbers = (each.asked, each.accepted, each.refused, each.failed)
        rates = f"{each.images_per_s:.1f}", f"{each.engine_per_s:.1f}" if each.engine_per_s else ""
        times = f"{each.p50_ms:.0f}", f"{each.p99_ms:.0f}"
        found.add_row(
            each.network, f"{each.load:.0%}" if each.load else "full", *map(str, numbers), *rates, *times, memory
        )
    return found


if __name__ == "__main__":
    main()
