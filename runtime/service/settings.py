"""How a service is set up: what it serves, where it listens, and its limits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..bundle import DEFAULT_BUNDLE
from ..errors import SalienceError
from ..load_options import LoadOptions

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
        bytes: of one request.
        json_bytes: of one request that is all JSON, which takes many times its size in memory.
        pixels: of one picture, and of all pictures of one group.
        images: in one request.
        queue: requests that may wait or run; beyond it a request is answered with 503.
        timeout_s: for one request, from the end of its headers to its answer.
        header_bytes: of the address, headers and trailers of one HTTP request.
        header_s: for the headers of one HTTP request to arrive; no longer than `timeout_s`.
    """

    bytes: int = 64 << 20
    json_bytes: int = 16 << 20
    pixels: int = 50_000_000
    images: int = 64
    queue: int = 64
    timeout_s: float = 30.0
    header_bytes: int = 64 << 10
    header_s: float = 10.0


@dataclass(frozen=True)
class ServiceSettings:
    """A service.

    Attributes:
        bundles: folder by model name.
        host: address to listen at.
        port: of HTTP.
        grpc_port: of gRPC; None for no gRPC.
        limits: see `Limits`.
        calls: engine calls at once.
        batch: pictures of several requests in one engine call, at most.
        delay_s: how long a picture waits for others to share its engine call.
        grace_s: for what is under way when the service is told to stop.
        reload_s: how often a bundle is looked at for a change; 0 for never.
        token: what clients must show; None for an open service.
        load: how the bundles are opened.
    """

    bundles: dict[str, Path]
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = 8081
    limits: Limits = Limits()
    calls: int = 1
    batch: int = 1
    delay_s: float = 0.002
    grace_s: float = 30.0
    reload_s: float = 5.0
    token: str | None = None
    load: LoadOptions = field(default_factory=LoadOptions)


def named_bundles(options: Sequence[str]) -> dict[str, Path]:
    """`["bundles/arn", "best=bundles/multis"]` -> folder by name; none for the bundle that ships with the package.

    Raises:
        SalienceError: a name is there twice, or cannot be a part of a URL.
    """
    if not options:
        return {"multis": DEFAULT_BUNDLE}
    found: dict[str, Path] = {}
    for option in options:
        name, equals, folder = option.partition("=")
        path = Path(folder if equals else option)
        name = name if equals else path.resolve().name
        if not _NAME.fullmatch(name):
            raise SalienceError(
                f"--bundle {option}: {name!r} cannot name a model, expected letters, digits, '.', '_' and '-'; "
                "give it a name: --bundle NAME=FOLDER."
            )
        if name in found:
            raise SalienceError(f"--bundle {option}: there is a model {name} already; give one: --bundle NAME=FOLDER.")
        found[name] = path
    return found
