"""A service in a process of its own, as users start it; the clients' libraries and KServe cannot share one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METHODS = ("multis", "arn", "lps", "gicd", "cgd")


@dataclass
class Running:
    """A service and how to reach it."""

    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    log: Path
    host: str = field(default="127.0.0.1")

    @property
    def url(self) -> str:
        """Of HTTP."""
        return f"http://{self.host}:{self.port}"

    def events(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def wait_ready(self, seconds: float = 60) -> None:
        """Return once it is ready; an error with its log where it ends before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"not ready, exit code {self.process.poll()}:\n{self.log.read_text()}")

    def resident_bytes(self) -> int:
        """Memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(
    folder: Path, *arguments: str, wait: bool = True, before: str = "", **environment: str
) -> Iterator[Running]:
    """A service with `arguments`, ended with the block; the code `before` runs first in its process."""
    port, grpc_port, log = free_port(), free_port(), folder / f"service-{time.monotonic_ns()}.log"
    code = f"{before}\nfrom salience.runtime.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", str(port), "--grpc-port", str(grpc_port), *arguments]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ | environment)
    found = Running(process, port, grpc_port, log)
    try:
        if wait:
            found.wait_ready()
        yield found
    finally:
        process.kill()
        process.wait()
