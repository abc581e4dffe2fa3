"""What goes wrong, as HTTP and gRPC name it."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.errors import InferenceError, InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
from starlette.exceptions import HTTPException

from ..errors import SalienceError
from .gate import BusyError
from .queries import QueryError

log = logging.getLogger("salience.service")

# The first that fits; whatever is not here is the service's own fault and is told without its inside.
_STATUS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (QueryError, HTTPStatus.BAD_REQUEST),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (InferenceError, HTTPStatus.BAD_REQUEST),
    (ModelNotFound, HTTPStatus.NOT_FOUND),
    (ModelNotReady, HTTPStatus.SERVICE_UNAVAILABLE),
    (ServerNotReady, HTTPStatus.SERVICE_UNAVAILABLE),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (TimeoutError, HTTPStatus.GATEWAY_TIMEOUT),
    (NotImplementedError, HTTPStatus.NOT_IMPLEMENTED),
    (SalienceError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


def sentence(error: BaseException) -> tuple[HTTPStatus, str]:
    """The status and the sentence for an error."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
    if status is None:
        log.error("failure", exc_info=error)
        return HTTPStatus.INTERNAL_SERVER_ERROR, "service: failed on this request; its log says why."
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and isinstance(error, SalienceError):
        log.error("failure", extra={"reason": str(error)})
    return status, str(error)


def add_handlers(app: FastAPI) -> None:
    """Answer every error of `app` as JSON: {"error": one sentence}."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        status, message = sentence(error)
        headers = {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return JSONResponse({"error": message}, status, headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        problem = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        place = ".".join(str(part) for part in problem.get("loc", ()))[:100]
        return JSONResponse({"error": f"request: {place}: {problem.get('msg', 'cannot be read')}."}, 400)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 (what it is registered for)
        return JSONResponse({"error": f"request: {error.detail}."}, error.status_code, error.headers)

    for kind in (*(kind for kind, _ in _STATUS), Exception):
        app.add_exception_handler(kind, told)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
