"""The service as a whole: models, HTTP and gRPC in one event loop, from warming up to draining."""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints

from .connection import connection_type
from .faults import add_handlers
from .gate import Gate
from .guard import Guard
from .logs import log_as_json
from .memory import trim_heap
from .metrics import Metrics
from .protocol import Plane, Repository, RepositoryExtension, SaliencyModel
from .remote_calls import grpc_server
from .routes import add_routes
from .served import Served, Workshop
from .settings import ServiceSettings

# Between looks at what may rest, where no change of a bundle is looked for.
_REST_S = 5.0
# From the end of the grace period to the end of the process where threads do not return.
_FORCE_S = 2.0
log = logging.getLogger("salience.service")


class Service:
    """A service of some bundles.

    Attributes:
        settings: see `ServiceSettings`.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._metrics = Metrics()
        self._gate = Gate(settings.limits.queue, self._metrics)
        self._workshop = Workshop(settings, self._metrics)
        self._models = {name: Served(name, folder, self._workshop) for name, folder in settings.bundles.items()}
        repository = Repository()
        self._plane = Plane(repository, self._gate)
        self._extension = RepositoryExtension(model_registry=repository)
        for served in self._models.values():
            repository.update(SaliencyModel(served, self._workshop))
        self._failure: Exception | None = None
        # When the grace period is over, by the event loop's clock.
        self._end = 0.0

    def app(self) -> FastAPI:
        """The HTTP application, without what guards it."""
        app = FastAPI(title="salience", docs_url=None, redoc_url=None, openapi_url=None)
        register_v2_endpoints(app, self._plane, self._extension)
        add_routes(app.router, self._models, self._workshop)
        add_handlers(app)
        return app

    async def run(self, sock: socket.socket) -> None:
        """Serve at a bound socket until a signal says stop, then finish what is under way.

        Raises:
            SalienceError: a bundle cannot be loaded at the start.
            OSError: the gRPC port is taken.
        """
        settings = self.settings
        guard = Guard(
            self.app(), self._models, gate=self._gate, limits=settings.limits, token=settings.token,
            metrics=self._metrics,
        )  # fmt: skip
        http = _Http(
            uvicorn.Config(
                guard,
                http=connection_type(settings.limits),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=max(1, round(settings.grace_s)),
                # Beyond the queue connections are answered with 503, beyond this they are not even read.
                limit_concurrency=settings.limits.queue + 1024,
            )
        )
        remote = None
        if settings.grpc_port is not None:
            remote = grpc_server(settings, self._plane, self._extension, self._gate, self._metrics)
            await remote.start()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._drain, http)
        keeping = asyncio.create_task(self._keep(http))
        try:
            await http.serve([sock])
            if remote is not None:
                await remote.stop(max(0.0, self._end - loop.time()))
        finally:
            keeping.cancel()
            self._workshop.close()
        if self._failure is not None:
            raise self._failure
        log.info("stopped")

    def _drain(self, http: uvicorn.Server) -> None:
        """Take no more requests, and stop when those under way are answered, or when their time is over."""
        if self._gate.draining:
            return
        log.info("draining", extra={"in_flight": self._gate.inside})
        self._gate.draining = True
        self._end = asyncio.get_running_loop().time() + self.settings.grace_s
        # A thread, since a decoder or an engine that does not return would keep the event loop from ending.
        timer = threading.Timer(self.settings.grace_s + _FORCE_S, self._force_stop)
        timer.daemon = True
        timer.start()
        http.should_exit = True

    def _force_stop(self) -> None:
        """End the process, whatever its threads do."""
        log.error("stopped by force", extra={"in_flight": self._gate.inside})
        os._exit(1)

    async def _keep(self, http: uvicorn.Server) -> None:
        """Load every model, or end the service; then look for changed folders, and for memory to give back."""
        try:
            for served in self._models.values():
                await asyncio.to_thread(served.load)
                log.info("model ready", extra={"model": served.name, "backend": served.loaded.adapter.detector.backend})
        except Exception as error:
            self._failure = error
            http.should_exit = True
            return
        log.info("ready", extra={"port": self.settings.port, "grpc_port": self.settings.grpc_port})
        rested = 0
        while True:
            await asyncio.sleep(self.settings.reload_s or _REST_S)
            if self.settings.reload_s:
                for served in self._models.values():
                    await asyncio.to_thread(served.refresh)
            if not self._gate.inside and rested != self._gate.entered:
                rested = self._gate.entered
                await asyncio.to_thread(self._rest)

    def _rest(self) -> None:
        """Give back what all models keep for large pictures, and what is free by then."""
        for served in self._models.values():
            served.rest()
        trim_heap()


class _Http(uvicorn.Server):  # type: ignore[misc]
    """Uvicorn, which leaves signals to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


def serve(settings: ServiceSettings) -> None:
    """Run a service until SIGTERM or SIGINT.

    Raises:
        SalienceError: a bundle cannot be loaded.
        OSError: an address cannot be listened at.
    """
    log_as_json()
    with (
        _listen(settings.host, settings.port) as sock,
        asyncio.Runner(loop_factory=uvicorn.Config(None, loop="auto").get_loop_factory()) as runner,
    ):
        runner.run(_run(settings, sock))


async def _run(settings: ServiceSettings, sock: socket.socket) -> None:
    await Service(settings).run(sock)


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound before anything is loaded, so that a taken port is told at once."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"cannot be listened at ({error.strerror}); is it taken?", f"{host}:{port}"
        ) from error
    return sock
