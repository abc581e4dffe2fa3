"""What every HTTP request passes first: token, place, size, time, and whether it is still wanted."""

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Container, MutableMapping
from contextlib import nullcontext
from typing import Any, TypeAlias

import orjson

from ..errors import SalienceError
from .gate import BusyError, Gate
from .metrics import Metrics
from .settings import Limits

log = logging.getLogger("salience.service")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# What anybody may see, token or not: the page's files, and what orchestrators and Prometheus ask for.
_OPEN = ("/page/", "/v2/health/", "/metrics")

_NAMED = re.compile(r"/(?:v2/models|api/predict)/([^/]+)")
# Of a request that is no POST, which needs none and passes without a place.
_OTHER_BYTES = 1 << 16


class RefusedError(SalienceError):
    """A request that goes no further; `status` is HTTP's."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """ASGI middleware in front of the whole service.

    A request's body is read before its handler runs, in bounded size and time; a request whose client has gone is
    given up where it is.

    Args:
        app: what is guarded.
        models: the names that are counted and logged; no others are, since clients make them up.
        gate: see `Gate`.
        limits: see `Limits`.
        token: that clients must show; None for none.
        metrics: see `Metrics`.
    """

    def __init__(
        self, app: App, models: Container[str], *, gate: Gate, limits: Limits, token: str | None, metrics: Metrics
    ) -> None:
        self._app, self._models, self._gate, self._limits, self._metrics = app, models, gate, limits, metrics
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Guard`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, sent = time.monotonic(), _Watched(send)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                await self._handle(scope, receive, sent)
        except RefusedError as error:
            await _answer(sent, error)
        except BusyError as error:
            await _answer(sent, RefusedError(503, str(error), Retry_After=str(error.retry_s)))
        except TimeoutError:
            await _answer(sent, RefusedError(*self._too_slow(sent)))
        except Exception:
            # It has been logged and, if it could be, answered.
            await _answer(sent, RefusedError(500, "service: failed on this request; its log says why."))
        finally:
            self._note(scope, sent, time.monotonic() - start)

    async def _handle(self, scope: Scope, receive: Receive, send: "_Watched") -> None:
        if scope["path"] != "/" and not scope["path"].startswith(_OPEN):
            self._check_token(scope)
        costly = scope["method"] == "POST"
        with self._gate.enter() if costly else nullcontext():
            body = await self._read(scope, receive)
            send.whole = True
            send.bytes = len(body)
            await _while_wanted(self._app(scope, _replayed(body, receive), send), receive, send)

    def _check_token(self, scope: Scope) -> None:
        if self._token is None:
            return
        shown = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(shown, f"Bearer {self._token}".encode()):
            raise RefusedError(
                401,
                "token: is missing or wrong; send the header Authorization: Bearer TOKEN.",
                WWW_Authenticate="Bearer",
            )

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body."""
        headers = dict(scope["headers"])
        limit = self._limits.bytes if scope["method"] == "POST" else _OTHER_BYTES
        if headers.get(b"content-type", b"").startswith(b"application/json"):
            limit = min(limit, self._limits.json_bytes)
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise RefusedError(413, f"request: {int(announced)} bytes, the limit is {limit}.", Connection="close")
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "request: the client left before its end.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise RefusedError(413, f"request: more than {limit} bytes, the limit.", Connection="close")
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_slow(self, sent: "_Watched") -> tuple[int, str]:
        limit_s = self._limits.timeout_s
        if sent.whole:
            return 504, f"request: was not answered within {limit_s:g} s, the limit; ask again later, or for less."
        return 408, f"request: did not arrive within {limit_s:g} s, the limit."

    def _note(self, scope: Scope, sent: "_Watched", seconds: float) -> None:
        """Count and log a request for maps; the others are not worth a line."""
        if scope["method"] != "POST":
            return
        named = _NAMED.match(scope["path"])
        model = named[1] if named and named[1] in self._models else ""
        status = sent.status or 499
        self._metrics.requests.labels(model, "http", str(status)).inc()
        log.info(
            "request",
            extra={
                "model": model,
                "protocol": "http",
                "status": status,
                "ms": round(1000 * seconds, 1),
                "bytes": sent.bytes,
            },
        )


class _Watched:
    """`send` that remembers how far things are."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.whole = False
        self.bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once; nothing comes after it that a handler would wait for."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        for message in messages:
            return message
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")

    return replay


async def _while_wanted(handler: Awaitable[None], receive: Receive, send: _Watched) -> None:
    """Run `handler`, and give it up where the client leaves."""
    working = asyncio.ensure_future(handler)
    leaving = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _answer(send: _Watched, error: RefusedError) -> None:
    """Answer with the sentence, where nothing has been answered yet."""
    if send.status:
        return
    body = orjson.dumps({"error": str(error)})
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
