"""`salience serve`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..backends.engine import available_cores
from ..commands import report_errors
from ..errors import BackendUnavailableError, SalienceError
from ..load_options import LoadOptions
from ..option_groups import expand_options
from ..service.settings import Limits, ServiceSettings, named_bundles

_TOKEN = "SALIENCE_TOKEN"  # noqa: S105 (a variable's name)


@report_errors
@expand_options
def serve(
    bundle: Annotated[
        list[str] | None, typer.Option(help="Folder, or NAME=FOLDER; may be repeated. [the bundle in the package]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Of gRPC; 0 for none.")] = 8081,
    calls: Annotated[
        int | None, typer.Option(min=1, max=64, help="Engine calls at once. [one a core; with --device cuda: 1]")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=256, help="Pictures an engine call, at most. [1; with --device cuda: 8]")
    ] = None,
    max_delay_ms: Annotated[float, typer.Option(min=0, max=1000, help="A picture waits for its batch.")] = 2.0,
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="Requests under way; beyond: 503.")] = 64,
    max_bytes: Annotated[int, typer.Option(min=1024, help="Of a request.")] = Limits.bytes,
    max_pixels: Annotated[int, typer.Option(min=1024, help="Of a picture, or of a group.")] = Limits.pixels,
    max_images: Annotated[int, typer.Option(min=1, max=4096, help="In a request.")] = Limits.images,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.")] = Limits.timeout_s,
    grace: Annotated[float, typer.Option(min=1, help="Seconds for what is under way at SIGTERM.")] = 30.0,
    reload: Annotated[float, typer.Option(min=0, help="Seconds between looks for a changed bundle; 0: none.")] = 5.0,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File of the token that clients must show. [the variable {_TOKEN}]")
    ] = None,
    *,
    options: LoadOptions,
) -> None:
    """Serve bundles over HTTP and gRPC: the Open Inference Protocol, pictures, and a web page."""
    try:
        with _no_arguments():
            from ..service.server import serve as run
    except ImportError as error:
        raise BackendUnavailableError(
            f"salience serve: {error.name} is not installed; pip install 'salience[serve]'."
        ) from error
    calls, threads, batch = _shares(calls, options.threads, batch, on_gpu=options.asks_for_gpu)
    settings = ServiceSettings(
        bundles=named_bundles(bundle or []),
        host=host,
        port=port,
        grpc_port=grpc_port or None,
        limits=Limits(max_bytes, min(Limits.json_bytes, max_bytes), max_pixels, max_images, queue, timeout),
        calls=calls,
        batch=batch,
        delay_s=max_delay_ms / 1000,
        grace_s=grace,
        reload_s=reload,
        token=_token(token_file),
        load=replace(options, threads=threads),
    )
    run(settings)


@contextmanager
def _no_arguments() -> Iterator[None]:
    """KServe reads the command line when it is imported; ours is not for it."""
    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = kept


def _shares(calls: int | None, threads: int | None, batch: int | None, *, on_gpu: bool) -> tuple[int, int | None, int]:
    """Calls, threads and batch where they are not given: a CPU gives most by a call a core, a GPU by large batches."""
    if on_gpu:
        return calls or 1, threads, batch or 8
    cores = available_cores()
    calls = calls or max(1, cores // (threads or 1))
    return calls, threads or max(1, cores // calls), batch or 1


def _token(file: Path | None) -> str | None:
    token = os.environ.get(_TOKEN) if file is None else file.read_text().strip()
    if token == "":
        raise SalienceError(f"token of {file or _TOKEN}: is empty; expected some text, or no token at all.")
    return token
