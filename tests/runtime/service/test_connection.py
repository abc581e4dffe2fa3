"""What a client sends before and around a request's body is bounded in bytes and in time."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.runtime.service.running import Running, running

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /api/predict/multis HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
# What comes first, and what then comes again and again.
ENDLESS = {
    "many headers": (LIVE, b"a:b\r\n"),
    "one header": (LIVE + b"a: ", b"x"),
    "one name": (LIVE, b"x"),
    "address": (b"GET /", b"x"),
    "empty lines": (b"", b"\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"a:b\r\n"),
    "one trailer": (CHUNKED + b"0\r\na: ", b"x"),
    "chunk extension": (CHUNKED + b"1;", b"x"),
}
SENT_BYTES = 16 << 20


@pytest.fixture(scope="module")
def impatient(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that waits for headers for 1 s."""
    folder = tmp_path_factory.mktemp("impatient")
    with running(folder, "--bundle", f"multis={bundles['multis']}", "--timeout", "1") as found:
        yield found


def connect(found: Running) -> socket.socket:
    return socket.create_connection((found.host, found.port), timeout=10)


def answer_of(sock: socket.socket) -> bytes:
    """All that comes until the connection is closed; what was sent beyond the end may have reset it."""
    parts = []
    with suppress(ConnectionResetError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def flood(sock: socket.socket, start: bytes, again: bytes) -> int:
    """Bytes that could be sent, of `SENT_BYTES`."""
    block = again * (65536 // len(again))
    sent = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(start)
        while sent < SENT_BYTES:
            sock.sendall(block)
            sent += len(block)
    return sent


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_headers_are_refused_before_memory_grows(service: Running, kind: str) -> None:
    before = service.resident_bytes()
    with connect(service) as sock:
        sent = flood(sock, *ENDLESS[kind])
        # Unread bytes make the kernel reset the connection, and the answer may be lost with it.
        answer = answer_of(sock)
        assert not answer or answer.startswith(b"HTTP/1.1 431 "), answer
    assert sent < SENT_BYTES, "the service went on reading"
    assert service.resident_bytes() < before + 30_000_000


def test_the_refusal_is_one_sentence(service: Running) -> None:
    with connect(service) as sock:
        sock.sendall(LIVE + b"Cookie: " + b"x" * 70_000 + b"\r\n\r\n")
        head, _, body = answer_of(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in head
    assert "65536 bytes, the limit" in json.loads(body)["error"]


def test_what_is_not_http_is_answered(service: Running) -> None:
    with connect(service) as sock:
        sock.sendall(b"\x16\x03\x01 a greeting of TLS\r\n\r\n")
        head, _, body = answer_of(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"].startswith("request: is not HTTP/1.1")


def test_headers_below_the_limit_pass_again_and_again(service: Running) -> None:
    with closing(HTTPConnection(service.host, service.port, timeout=10)) as connection:
        for _ in range(5):
            connection.request("GET", "/v2/health/live", headers={"Cookie": "x" * 60_000})
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)


def test_requests_sent_at_once_are_answered_in_turn(service: Running) -> None:
    with connect(service) as sock:
        sock.sendall((LIVE + b"Cookie: " + b"x" * 30_000 + b"\r\n\r\n") * 4 + LIVE + b"Connection: close\r\n\r\n")
        assert answer_of(sock).count(b"HTTP/1.1 200 ") == 5


def test_small_chunks_pass(service: Running, jpegs: dict[str, Path]) -> None:
    data = jpegs["coffee"].read_bytes()
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\nNote: whole\r\n\r\n"
    with connect(service) as sock:
        sock.sendall(CHUNKED + body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("part", [b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n", b"G", b"GET / HTTP/1.1\r\n\r\nGET /"])
def test_headers_that_do_not_end_are_let_go(impatient: Running, part: bytes) -> None:
    start = time.monotonic()
    with connect(impatient) as sock:
        sock.sendall(part)
        answers = answer_of(sock)
    assert b"HTTP/1.1 408 " in answers
    assert 0.9 < time.monotonic() - start < 6


@pytest.mark.parametrize("drop", [b"a:b\r\n", b"\r\n"])
def test_headers_that_drip_are_let_go(impatient: Running, drop: bytes) -> None:
    start = time.monotonic()
    with connect(impatient) as sock, suppress(ConnectionError):
        sock.sendall(b"GET / HTTP/1.1\r\n" if drop != b"\r\n" else drop)
        while time.monotonic() < start + 8:
            sock.sendall(drop)
            time.sleep(0.1)
    assert time.monotonic() - start < 6


def test_a_connection_that_sends_nothing_is_closed(impatient: Running) -> None:
    with connect(impatient) as sock:
        assert sock.recv(100) == b""


def test_a_connection_in_use_is_kept(impatient: Running) -> None:
    with closing(HTTPConnection(impatient.host, impatient.port, timeout=10)) as connection:
        for _ in range(3):
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().read()
            kept = connection.sock
            time.sleep(1.2)
            assert connection.sock is kept
