"""HTTP beside the protocol: pictures as they are, examples, metrics, and the page."""

import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import FormData, UploadFile

from ..methods.cgd import ClampedDescentDetector
from .protocol import server_timing
from .queries import Answer, Query, QueryError, parse_options
from .served import Answers, Served, Workshop

_PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Photographs that scikit-image ships, free to use.
_EXAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
_TAKES = {"lps": "prior", "gicd": "group", "cgd": "class"}
# The page needs nothing of anybody else, and nobody may put it into a frame.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_routes(router: APIRouter, models: Mapping[str, Served], workshop: Workshop) -> None:
    """Add the routes of `models` to `router`."""

    async def predict(request: Request, name: str) -> Response:
        served = models.get(name)
        if served is None:
            return _error(404, f"model {name[:100]}: is not served here, expected one of {', '.join(models)}.")
        query = await _query(request, served.loaded.method, workshop.settings.limits.images)
        return _pictures(await served.answer(query))

    async def list_models() -> dict[str, Any]:
        limits = workshop.settings.limits
        told = {"bytes": limits.bytes, "pixels": limits.pixels, "images": limits.images}
        return {"models": [_described(served) for served in models.values() if served.ready], "limits": told}

    async def metrics() -> Response:
        return Response(generate_latest(workshop.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    router.add_api_route("/api/predict/{name}", predict, methods=["POST"], response_model=None)
    router.add_api_route("/api/models", list_models, methods=["GET"])
    router.add_api_route("/metrics", metrics, methods=["GET"], response_model=None)
    router.add_api_route("/api/examples", _list_examples, methods=["GET"])
    router.add_api_route("/api/examples/{name}", _example, methods=["GET"], response_model=None)
    router.add_api_route("/", _index, methods=["GET"], response_model=None)
    router.add_api_route("/page/{name:path}", _page_file, methods=["GET"], response_model=None)


async def _query(request: Request, method: str, images: int) -> Query:
    """The query of a form, or of one picture as the body, its options in the address."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        if kind and not kind.startswith(("image/", "application/octet-stream", "application/x-www-form-urlencoded")):
            raise QueryError(f"request: has type {kind[:100]}, expected a picture or multipart/form-data.")
        picture = await request.body()
        if not picture:
            raise QueryError("request: is empty, expected a picture or multipart/form-data with the field image.")
        return Query((picture,), (), parse_options(_once(request.query_params.multi_items()), method))
    async with request.form(max_files=2 * images + 1, max_fields=16, max_part_size=1 << 16) as form:
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        foreign = [
            name for name, value in form.items() if isinstance(value, UploadFile) and name not in ("image", "prior")
        ]
        if foreign:
            raise QueryError(f"field {foreign[0][:50]}: is a file, expected files in the fields image and prior alone.")
        pictures, priors = await _files(form, "image"), await _files(form, "prior")
    return Query(pictures, priors, parse_options(_once(fields + request.query_params.multi_items()), method))


def _once(parameters: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name.

    Raises:
        QueryError: one is there more than once.
    """
    counts = Counter(name for name, _ in parameters)
    name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise QueryError(f"parameter {name[:50]}: is there {count} times; expected once, so remove the others.")
    return dict(parameters)


async def _files(form: FormData, name: str) -> tuple[bytes, ...]:
    return tuple([await part.read() for part in form.getlist(name) if isinstance(part, UploadFile)])


def _pictures(found: Answers) -> Response:
    """A PNG for one picture, a ZIP of them for several."""
    headers = {"Server-Timing": server_timing(found.stages)} | _class_headers(found.answers)
    if len(found.answers) == 1:
        return Response(found.answers[0].png, media_type="image/png", headers=headers)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, answer in enumerate(found.answers, start=1):
            archive.writestr(f"{number}.png", answer.png)
    return Response(buffer.getvalue(), media_type="application/zip", headers=headers)


def _class_headers(answers: list[Answer]) -> dict[str, str]:
    first = answers[0]
    if first.target is None or len(answers) > 1:
        return {}
    return {"Salience-Class": quote(first.target, safe=" ,"), "Salience-Probability": f"{first.probability:.4f}"}


def _described(served: Served) -> dict[str, Any]:
    loaded = served.loaded
    detector = loaded.adapter.detector
    return {
        "name": served.name,
        "method": loaded.method,
        "takes": _TAKES.get(loaded.method, "image"),
        "precision": detector.precision,
        "backend": detector.backend,
        "classes": list(detector.names) if isinstance(detector, ClampedDescentDetector) else [],
    }


@cache
def _example_files() -> dict[str, Path]:
    """The photographs of scikit-image, by name, where it is installed; none of what it would fetch."""
    found = find_spec("skimage")
    folder = Path(found.origin).parent / "data" if found is not None and found.origin else Path()
    candidates = [folder / f"{name}{suffix}" for name in _EXAMPLES for suffix in (".png", ".jpg")]
    return {path.stem: path for path in candidates if path.is_file()}


async def _list_examples() -> dict[str, list[str]]:
    return {"examples": list(_example_files())}


async def _example(name: str) -> Response:
    path = _example_files().get(name)
    if path is None:
        return _error(
            404, f"example {name[:100]}: is not here, expected one of {', '.join(_example_files()) or 'none'}."
        )
    return Response(path.read_bytes(), media_type="image/png" if path.suffix == ".png" else "image/jpeg")


async def _index() -> Response:
    return await _page_file("index.html")


async def _page_file(name: str) -> Response:
    files = {path.name: path for path in _PAGE.iterdir() if path.suffix in _TYPES}
    if name not in files:
        return _error(404, f"page {name[:100]}: is not here.")
    return Response(files[name].read_bytes(), media_type=_TYPES[files[name].suffix], headers=PAGE_HEADERS)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
