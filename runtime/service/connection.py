"""HTTP connections with limits on everything that arrives outside of a request's body."""

import asyncio
from http import HTTPStatus
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .settings import Limits


class _LimitError(Exception):
    """Raised inside a callback of the parser, which then stops."""


class LimitedConnection(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
    """A connection that refuses large and slow request headers.

    The parser has no limits of its own, and uvicorn sets none for it. Two counts bound the memory of a connection:

    - the bytes of the request line, the headers and the trailers of one request;
    - the bytes since the parser last completed anything, such as those of one header without an end.

    Each may reach `Limits.header_bytes`, and exceed it by one read of the event loop (256 KiB).

    Attributes:
        limits: see `Limits`; uvicorn makes the connections, so they belong to the class.
    """

    limits = Limits()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limit_bytes = self.limits.header_bytes
        self._limit_s = min(self.limits.header_s, self.limits.timeout_s)
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._parsed_any = False
        self._in_body = False
        self._begun = False
        self._refusal = (HTTPStatus.BAD_REQUEST, "request: is not HTTP/1.1; see its request line and headers.")
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit of the first request's headers."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limit."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and refuse the connection where it exceeds a limit."""
        self._parsed_any = False
        super().data_received(data)
        if self._parsed_any:
            self._unparsed_bytes = 0
            return
        self._unparsed_bytes += len(data)
        if self._unparsed_bytes > self._limit_bytes:
            self._refuse_size()
            self.send_400_response("")
        elif not self._in_body:
            self._start_timer()

    def on_message_begin(self) -> None:
        """Count anew for the next request."""
        self._head_bytes = 0
        self._parsed_any = self._begun = True
        self._start_timer()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or trailer."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the time limit: from here on `Guard` has its own."""
        self._parsed_any = self._in_body = True
        self._begun = False
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that the parser gets on."""
        self._parsed_any = True
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Note that the parser gets on."""
        self._parsed_any = True

    def on_chunk_complete(self) -> None:
        """Note that the parser gets on."""
        self._parsed_any = True

    def on_message_complete(self) -> None:
        """Note that a request has arrived as a whole."""
        self._parsed_any = True
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer with the reason of the refusal, unless another answer is due first; then close."""
        if self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy or (self._in_body and not self.cycle.response_started):
            self.transport.write(_response(*self._refusal))
        if busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._stop_timer()
        self.transport.close()

    def _count(self, size: int) -> None:
        self._parsed_any = True
        self._head_bytes += size
        if self._head_bytes > self._limit_bytes:
            self._refuse_size()
            raise _LimitError

    def _refuse_size(self) -> None:
        self._refusal = (
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"request: address and headers exceed {self._limit_bytes} bytes, the limit; send fewer or shorter ones.",
        )

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._limit_s, self._out_of_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _out_of_time(self) -> None:
        """Close the connection, with an answer where a request has begun."""
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            # The request before it is still being answered, and nothing is read meanwhile.
            self._start_timer()
            return
        if not self._begun:
            self.transport.close()
            return
        self._refusal = (
            HTTPStatus.REQUEST_TIMEOUT,
            f"request: its headers did not arrive within {self._limit_s:g} s, the limit; send them at once.",
        )
        self.send_400_response("")


def connection_type(limits: Limits) -> type[LimitedConnection]:
    """Return the class of connections with `limits`."""

    class Connection(LimitedConnection):
        pass

    Connection.limits = limits
    return Connection


def _response(status: HTTPStatus, message: str) -> bytes:
    body: bytes = orjson.dumps({"error": message})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
