"""A service on Ray Serve that adds and removes replicas as its load asks for.

    serve run salience.runtime.scale.deployment:app bundle=DIR max_replicas=4

A POST of a picture, with `?kind=mask` or another kind, gives the map as PNG; from Python
`serve.get_app_handle(NAME).predict.remote(image_bytes, kind)` does. Ray Serve reports its use to Ray's makers unless
RAY_USAGE_STATS_ENABLED=0 is set.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..apart import each_apart
from ..bundle import DEFAULT_BUNDLE
from ..commands import parse_settings
from ..detector import Prepared
from ..errors import BackendUnavailableError, EngineError, SalienceError
from ..load_options import BackendName, LoadOptions
from ..manifest import Precision
from ..png_writer import encode_png
from ..saliency import KINDS, Kind
from .settings import Settings

BODY_LIMIT_BYTES = 64 << 20


class Arguments(BaseModel):
    """What a service may be told.

    Attributes:
        bundle: its folder, which every machine sees under this path.
        backend: as for `load`.
        precision: as for `load`.
        gpus: of each replica; .5 lets two share a GPU, 0 is the CPU.
        threads: CPU threads of each replica.
        min_replicas: that wait for work.
        max_replicas: that there may be.
        target_ongoing: requests that a replica should have; above, more replicas are started.
        batch: pictures per engine call, at most.
        batch_wait_ms: that a picture waits for others.
        max_ongoing: requests that a replica takes.
        max_queued: requests that wait for a replica; any further one is answered by 503.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path = DEFAULT_BUNDLE
    backend: BackendName = "auto"
    precision: Precision | Literal["auto"] = "auto"
    gpus: float = Field(default=0, ge=0, le=1)
    threads: int = Field(default=1, ge=1)
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    target_ongoing: float = Field(default=2, gt=0)
    batch: int = Field(default=8, ge=1, le=1024)
    batch_wait_ms: float = Field(default=5, ge=0)
    max_ongoing: int = Field(default=16, ge=1)
    max_queued: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _check_replicas(self) -> "Arguments":
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        return self

    def settings(self) -> Settings:
        """As the detector wants them."""
        place = "cuda" if self.gpus else "cpu"
        options = LoadOptions(self.backend, self.precision, place, self.threads)
        return Settings(self.bundle.absolute(), load=options)


def build_app(arguments: dict[str, Any]) -> Any:
    """The application, of type `ray.serve.Application`.

    Args:
        arguments: by the names of `Arguments`, as values or as text.

    Raises:
        SalienceError: an argument is not known or not possible, or the bundle does not serve single pictures.
        BackendUnavailableError: Ray Serve is missing.
    """
    options = parse_settings(Arguments, arguments, "arguments")
    settings = options.settings()
    settings.check()
    return (
        _serve()
        .deployment(
            name="salience",
            ray_actor_options={"num_cpus": options.threads, "num_gpus": options.gpus},
            autoscaling_config={
                "min_replicas": options.min_replicas,
                "max_replicas": options.max_replicas,
                "target_ongoing_requests": options.target_ongoing,
            },
            max_ongoing_requests=options.max_ongoing,
            max_queued_requests=options.max_queued,
        )(Service)
        .bind(settings, options.batch, options.batch_wait_ms / 1000)
    )


# The name in the command above.
app = build_app


class Service:
    """One replica: a detector, and the requests that it has.

    Args:
        settings: of the detector.
        batch: pictures per engine call, at most.
        batch_wait_s: that a picture waits for others.
    """

    def __init__(self, settings: Settings, batch: int, batch_wait_s: float) -> None:
        self._detector, _ = settings.open()
        self._broken: str | None = None
        batched = _serve().batch(max_batch_size=batch, batch_wait_timeout_s=batch_wait_s)
        self._infer = batched(self._infer_batch)

    async def __call__(self, request: Any) -> Any:
        """A request of HTTP, `starlette.requests.Request`: a picture's bytes, or an error as JSON."""
        from starlette.responses import JSONResponse, Response

        try:
            unknown = sorted(request.query_params.keys() - {"kind"})
            if request.method != "POST" or unknown:
                found = f"parameter {', '.join(unknown)}" if unknown else request.method
                status = 400 if unknown else 405
                return JSONResponse({"error": f"{found}: expected a POST of a picture, and kind alone."}, status)
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT_BYTES:
                    return JSONResponse({"error": f"picture: above the limit of {BODY_LIMIT_BYTES} bytes."}, 413)
            png = await self.predict(bytes(body), request.query_params.get("kind", "map"))
            return Response(png, media_type="image/png")
        except SalienceError as error:
            return JSONResponse({"error": str(error)}, 500 if isinstance(error, EngineError) else 400)

    async def predict(self, image: bytes, kind: Kind = "map") -> bytes:
        """The PNG of an encoded picture's map.

        Raises:
            ImageError: the picture cannot be read.
            SalienceError: the kind is not known.
            EngineError: the engine failed.
        """
        if not isinstance(image, bytes):
            raise SalienceError(f"image of type {type(image).__name__}: expected the bytes of a picture.")
        if kind not in KINDS:
            raise SalienceError(f"kind {kind!r} is not known: choose one of {', '.join(KINDS)}.")
        prepared = await asyncio.to_thread(self._detector.prepare, image)
        values = await self._infer(prepared)
        if isinstance(values, Exception):
            raise values
        return await asyncio.to_thread(self._finish, prepared, values, kind)

    def check_health(self) -> None:
        """Raise where the engine has failed last, so that Ray Serve replaces this replica."""
        if self._broken:
            raise EngineError(self._broken)

    async def _infer_batch(self, prepared: list[Prepared]) -> list[Any]:
        return await asyncio.to_thread(self._infer_all, prepared)

    def _infer_all(self, prepared: Sequence[Prepared]) -> list[Any]:
        """Maps, or errors in their places."""
        found = each_apart(self._detector.infer, prepared)
        errors = [each for each in found if isinstance(each, Exception)]
        # One that fails alone may be at fault itself.
        self._broken = str(errors[-1]) if errors and len(errors) == len(found) else None
        return [_told(each) if isinstance(each, Exception) else each for each in found]

    def _finish(self, prepared: Prepared, values: Any, kind: Kind) -> bytes:
        return encode_png(self._detector.finish(prepared, values).render(kind))


def _told(error: Exception) -> SalienceError:
    return error if isinstance(error, SalienceError) else EngineError(f"{type(error).__name__}: {error}")


def _serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise BackendUnavailableError("a service on Ray needs Ray Serve: pip install 'salience[ray]'.") from error
    return serve
