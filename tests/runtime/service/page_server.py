"""A server that speaks the page's part of the HTTP API, with maps that a test can foresee."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import salience.runtime
from salience.runtime.errors import ImageError
from salience.runtime.images import decode, decode_map
from salience.runtime.png_writer import encode_png
from salience.runtime.saliency import SaliencyMap

PAGE = Path(salience.runtime.__file__).parent / "service" / "page"
# As strict as the real server's: the page has to work under it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
TIMING = "decode;dur=1.2, queue;dur=0.3, infer;dur=31.0, encode;dur=2.0"
CLASSES = ("red, scarlet", "green", "blue")


@dataclass(frozen=True)
class Refused:
    """An answer without a result; `sentence` None for a body that is no JSON, as a proxy sends it."""

    status: int
    sentence: str | None
    retry_after_s: int | None = None


@dataclass(frozen=True, eq=False)
class Sent:
    """One request for maps as it arrived: texts and files by the form's names, and when it was under way."""

    model: str
    texts: dict[str, str]
    files: dict[str, list[bytes]]
    names: tuple[str, ...]


Predict = Callable[[str, Sent], tuple[list[SaliencyMap], dict[str, str]]]


@dataclass(eq=False)
class StandIn:
    """What the server does, which a test sets, and what it saw.

    Attributes:
        refusals: answers to the next requests for maps, used up one by one.
        refused: answers to pictures by the name of their file, for good.
        token: what requests under /api must show.
        delay_s: before each answer to a request for maps.
        sent: requests for maps that were not refused.
        most_at_once: of requests for maps.
    """

    models: list[dict[str, Any]]
    predict: Predict
    examples: dict[str, bytes] = field(default_factory=dict)
    limit_bytes: int = 1 << 20
    refusals: list[Refused] = field(default_factory=list)
    refused: dict[str, Refused] = field(default_factory=dict)
    token: str | None = None
    delay_s: float = 0
    sent: list[Sent] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def described(self) -> dict[str, Any]:
        """The answer of /api/models."""
        return {"models": self.models, "limits": {"bytes": self.limit_bytes, "pixels": 150_000_000, "images": 3}}

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Counts the requests for maps that run at the same time."""
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1


def model(name: str, method: str, takes: str, classes: tuple[str, ...] = ()) -> dict[str, Any]:
    """A model as /api/models describes it."""
    engine = {"precision": "fp32", "backend": "ONNX Runtime (CPU)"}
    return {"name": name, "method": method, "takes": takes, **engine, "classes": list(classes)}


MODELS = [
    model("multis", "multis", "image"),
    model("better", "lps", "prior"),
    model("gicd", "gicd", "group"),
    model("cgd", "cgd", "class", CLASSES),
]


def foreseen(takes: str, sent: Sent) -> tuple[list[SaliencyMap], dict[str, str]]:
    """Maps that tell what was sent.

    image: the brightness. prior: the inverted prior. group: everywhere the mean brightness of all pictures.
    class: the channel of that name, or the strongest one.
    """
    images = [decode(data) for data in sent.files["image"]]
    grey = [image.mean(axis=2, dtype=np.float32) / 255 for image in images]
    headers: dict[str, str] = {}
    if takes == "prior":
        grey = [1 - decode_map(sent.files["prior"][0])]
    elif takes == "group":
        shared = np.float32(np.mean([values.mean() for values in grey]))
        grey = [np.full_like(values, shared) for values in grey]
    elif takes == "class":
        channel = _channel(images[0], sent.texts.get("class"))
        grey = [images[0][..., channel].astype(np.float32) / 255]
        headers = {"Salience-Class": CLASSES[channel].replace(" ", "%20"), "Salience-Probability": "0.9312"}
    return [SaliencyMap(values, image) for values, image in zip(grey, images, strict=True)], headers


def _channel(image: NDArray[np.uint8], name: str | None) -> int:
    if name is None:
        return int(image.mean(axis=(0, 1)).argmax())
    found = [index for index, known in enumerate(CLASSES) if name in known.split(", ") or name == known]
    if not found:
        raise ImageError(f"class {name!r}: none of that name, expected one of {', '.join(CLASSES)}.")
    return found[0]


class Handler(BaseHTTPRequestHandler):
    """Answers for `stand_in`."""

    stand_in: ClassVar[StandIn]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read `StandIn.sent`."""

    def do_GET(self) -> None:
        """Models, examples, and the page."""
        if self.path.startswith("/api/") and self._forbidden():
            return
        stand_in = self.stand_in
        name = self.path.rpartition("/")[2]
        if self.path == "/api/models":
            self._json(200, stand_in.described())
        elif self.path == "/api/examples":
            self._json(200, {"examples": list(stand_in.examples)})
        elif self.path.startswith("/api/examples/") and name in stand_in.examples:
            self._reply(200, stand_in.examples[name], "image/jpeg")
        elif self.path == "/" or self.path == f"/page/{name}":
            self._page_file(name or "index.html")
        else:
            self._json(404, {"error": f"{self.path}: is not here."})

    def do_POST(self) -> None:
        """Maps."""
        sent = self._form()
        if self._forbidden():
            return
        with self.stand_in.under_way():
            time.sleep(self.stand_in.delay_s)
            refusal = self._refusal(sent)
            if refusal is not None:
                self._refuse(refusal)
                return
            self._predict(sent)

    def _predict(self, sent: Sent) -> None:
        takes = next(known["takes"] for known in self.stand_in.models if known["name"] == sent.model)
        try:
            maps, headers = self.stand_in.predict(takes, sent)
        except ImageError as error:
            self._json(400, {"error": str(error)})
            return
        self.stand_in.sent.append(sent)
        pictures = [encode_png(found.render(sent.texts["kind"])) for found in maps]  # type: ignore[arg-type]
        headers |= {"Server-Timing": TIMING}
        if len(pictures) == 1:
            self._reply(200, pictures[0], "image/png", headers)
            return
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
            for number, picture in enumerate(pictures, start=1):
                file.writestr(f"{number}.png", picture)
        self._reply(200, archive.getvalue(), "application/zip", headers)

    def _form(self) -> Sent:
        """The whole request; it is read also where it is refused, so that the connection stays usable."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        texts: dict[str, str] = {}
        files: dict[str, list[bytes]] = {}
        names: list[str] = []
        for part in message.walk():
            name = part.get_param("name", header="content-disposition")
            data = part.get_payload(decode=True)
            if not isinstance(name, str) or not isinstance(data, bytes):
                continue
            file_name = part.get_filename()
            if file_name is None:
                texts[name] = data.decode()
            else:
                files.setdefault(name, []).append(data)
                names.append(file_name)
        return Sent(self.path.rpartition("/")[2], texts, files, tuple(names))

    def _refusal(self, sent: Sent) -> Refused | None:
        with self.stand_in.lock:
            if self.stand_in.refusals:
                return self.stand_in.refusals.pop(0)
        return next((self.stand_in.refused[name] for name in sent.names if name in self.stand_in.refused), None)

    def _refuse(self, refusal: Refused) -> None:
        seconds = refusal.retry_after_s
        headers = {} if seconds is None else {"Retry-After": str(seconds)}
        if refusal.sentence is None:
            self._reply(refusal.status, b"<html>bad gateway</html>", "text/html", headers)
        else:
            self._json(refusal.status, {"error": refusal.sentence}, headers)

    def _forbidden(self) -> bool:
        token = self.stand_in.token
        if token is None or self.headers.get("Authorization") == f"Bearer {token}":
            return False
        self._json(401, {"error": "token: is missing or wrong."})
        return True

    def _page_file(self, name: str) -> None:
        path = PAGE / name
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        self._reply(200, path.read_bytes(), TYPES[path.suffix], headers)

    def _json(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._reply(status, json.dumps(value).encode(), "application/json", headers)

    def _reply(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(HTTPStatus(status))
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # the page gives up requests that it no longer wants
            self.end_headers()
            self.wfile.write(body)


@contextmanager
def served(stand_in: StandIn) -> Iterator[str]:
    """The address at which `stand_in` is served while the block runs."""
    handler = type("BoundHandler", (Handler,), {"stand_in": stand_in})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def png(image: Image.Image) -> bytes:
    """The picture, encoded."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
