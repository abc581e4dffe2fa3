"""The clients of the benchmark of a service, against a server whose answers are known."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'salience[serving]'")

from benchmarks.serving import LoadRow, row
from benchmarks.serving_client import Outcome, closed_loop, open_loop

DELAY_S = 0.05


class Answers(BaseHTTPRequestHandler):
    """Every third request is refused, the others take their time."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Answers.asked += 1
        refused = Answers.asked % 3 == 0
        if not refused:
            time.sleep(DELAY_S)
        self.send_response(503 if refused else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Answers.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_an_open_loop_asks_whether_it_is_answered_or_not(url: str) -> None:
    found = open_loop(url, b"picture", rate=60, seconds=1)
    assert found.statuses.total() == Answers.asked
    assert 30 < Answers.asked < 100
    assert found.statuses[503] == Answers.asked // 3
    assert len(found.accepted_s) == found.statuses[200]
    assert min(found.accepted_s) >= DELAY_S


def test_a_closed_loop_waits_for_its_answers(url: str) -> None:
    found = closed_loop(url, b"picture", clients=2, seconds=1)
    # Two thirds of each client's requests take 50 ms: at most 30 a second.
    assert 0 < found.statuses.total() <= 66
    assert found.rate == pytest.approx(found.statuses[200] / found.seconds)


def test_nobody_at_home_is_a_failure(url: str) -> None:
    found = open_loop("http://127.0.0.1:1/", b"picture", rate=20, seconds=0.2)
    assert set(found.statuses) == {0}
    made = row("net", 0.5, found, (1, 2), 0)
    assert isinstance(made, LoadRow)
    assert (made.accepted, made.refused, made.failed) == (0, 0, found.statuses.total())


def test_percentiles_are_of_what_was_accepted() -> None:
    found = Outcome(seconds=2.0, accepted_s=[index / 1000 for index in range(1, 102)])
    assert found.percentile_ms(0.5) == pytest.approx(51, abs=0.2)
    assert found.percentile_ms(0.99) == pytest.approx(100, abs=0.2)
    assert Outcome().percentile_ms(0.99) == 0
