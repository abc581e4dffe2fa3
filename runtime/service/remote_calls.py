"""The protocol over gRPC: KServe's servicer, with the service's limits around it."""

import asyncio
import hmac
import logging
import time
from http import HTTPStatus
from typing import Any

import grpc
from grpc import aio
from kserve import InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer

from .faults import sentence
from .gate import BusyError, Gate
from .metrics import Metrics
from .protocol import Plane, RepositoryExtension
from .queries import QueryError
from .settings import ServiceSettings

log = logging.getLogger("salience.service")

_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
}
# What anybody may ask, token or not.
_OPEN = ("ServerLive", "ServerReady", "ModelReady")


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's servicer, with a place for every request and a limit to its time."""

    def __init__(
        self, plane: Plane, extension: RepositoryExtension, gate: Gate, limit_s: float, metrics: Metrics
    ) -> None:
        super().__init__(plane, extension)
        self._gate, self._limit_s, self._metrics = gate, limit_s, metrics

    async def ModelInfer(  # noqa: N802 (the protocol's name)
        self, request: pb.ModelInferRequest, context: Any
    ) -> pb.ModelInferResponse:
        """Answer a request, and note it."""
        start = time.monotonic()
        known = self._data_plane.model_registry.get_model(request.model_name) is not None
        model, status = request.model_name if known else "", "CANCELLED"
        try:
            async with asyncio.timeout(self._limit_s):
                with self._gate.enter():
                    found, _ = await self._data_plane.infer(
                        request=_read(request), headers={}, model_name=request.model_name
                    )
            status = "OK"
            return found.to_grpc()
        except Exception as error:
            code = _CODES.get(sentence(error)[0], grpc.StatusCode.INTERNAL)
            status = code.name
            raise
        finally:
            seconds = time.monotonic() - start
            self._metrics.requests.labels(model, "grpc", status).inc()
            told = {"model": model, "protocol": "grpc", "status": status, "ms": round(1000 * seconds, 1)}
            log.info("request", extra=told | {"bytes": request.ByteSize()})


class Errors(aio.ServerInterceptor):  # type: ignore[misc]
    """Checks the token, and answers errors by their code and sentence."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        method, asked = handler.unary_unary, details.method.rpartition("/")[2]
        shown = dict(details.invocation_metadata).get("authorization", "")
        allowed = self._token is None or asked in _OPEN or _equal(shown, f"Bearer {self._token}")

        async def answer(request: Any, context: Any) -> Any:
            if not allowed:
                await context.abort(
                    grpc.StatusCode.UNAUTHENTICATED, "token: is missing or wrong; send authorization: Bearer TOKEN."
                )
            try:
                return await method(request, context)
            except (asyncio.CancelledError, aio.AbortError):
                raise
            except Exception as error:
                if isinstance(error, BusyError):
                    context.set_trailing_metadata((("retry-after", str(error.retry_s)),))
                status, message = sentence(error)
                await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), message)

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


def grpc_server(
    settings: ServiceSettings, plane: Plane, extension: RepositoryExtension, gate: Gate, metrics: Metrics
) -> aio.Server:
    """A server that listens at the settings' gRPC port once it is started.

    Raises:
        OSError: the port is taken.
    """
    limits = settings.limits
    server = aio.server(
        interceptors=[Errors(settings.token)],
        maximum_concurrent_rpcs=limits.queue + 64,
        options=[
            ("grpc.max_receive_message_length", limits.bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    servicer = Servicer(plane, extension, gate, limits.timeout_s, metrics)
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise OSError(98, "the port cannot be listened at; is it taken?", f"port {settings.grpc_port}") from error
    return server


def _read(request: pb.ModelInferRequest) -> InferRequest:
    """The request, or QueryError where KServe cannot read it."""
    try:
        InferenceServicer.validate_grpc_request(request)
        return InferRequest.from_grpc(request)
    except Exception as error:
        raise QueryError(f"request: cannot be read ({error}).") from error


def _equal(shown: str, wanted: str) -> bool:
    return hmac.compare_digest(shown.encode(), wanted.encode())
