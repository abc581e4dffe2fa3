"""The command line of export."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import typer
from rich.console import Console

from salience.runtime.commands import parse_pairs, repeat_flags, report_errors
from salience.runtime.errors import CheckpointError, ExportError, SalienceError
from salience.runtime.manifest import Precision

from .graphs import GRAPHS
from .pipeline import BuildSettings, EngineName, build

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
T = TypeVar("T", bound=str)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point."""
    app(repeat_flags(sys.argv[1:], frozenset({"--precision", "--engine", "--target", "--option"})))


@app.command()
@report_errors
def build_engine(
    method: Annotated[str, typer.Argument(help=f"One of: {', '.join(GRAPHS)}.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the pretrained one of the repository.")] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(PRECISIONS)}; the first is the bundle's default. [fp32]"),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime, openvino: verify on it; tensorrt, tensorrt-rtx: compile. [onnxruntime]"),
    ] = None,
    size: Annotated[tuple[int, int] | None, typer.Option(help="Network input, height and width.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder with images/ and masks/: check the change of F and MAE as well."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="int8: folder with images/ and masks/ to calibrate with; a third of it judges where --images is "
            "not given."
        ),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Time the bundle on this CPU by each --engine; the fastest serves it.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="The bundle's folder. [bundles/METHOD]")] = None,
    batch: Annotated[
        tuple[int, int, int], typer.Option(help="Smallest, best and largest batch of compiled engines.")
    ] = (1, 1, 16),
    target: Annotated[
        list[str] | None,
        typer.Option(help="CUDA compute capabilities of tensorrt-rtx engines, such as 8.6 8.9."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE ... of the method's own options, such as rank=128 of lps.")
    ] = None,
) -> None:
    """Export METHOD: trace, verify against PyTorch, compile, write the bundle."""
    console = Console(stderr=True)
    chosen = output or Path("bundles") / method
    settings = BuildSettings(
        output=chosen,
        precisions=_choices(precision or ["fp32"], PRECISIONS, "--precision"),
        engines=_choices(engine or ["onnxruntime"], ENGINES, "--engine"),
        size=size,
        images=images,
        calibration=calibration,
        tune=tune,
        profile=batch,
        targets=tuple(target or ()),
        options=parse_pairs(option, "--option"),
    )

    @contextmanager
    def step(name: str) -> Iterator[None]:
        start = time.monotonic()
        with console.status(name):
            yield
        console.print(f"  {name}: {time.monotonic() - start:.1f} s", highlight=False)

    try:
        manifest = build(method, checkpoint or _pretrained(method), settings, step=step)
    except OSError as error:
        raise ExportError(f"output {chosen}: cannot be written ({error.strerror or error}).") from error
    size_bytes = sum(entry.bytes for entry in manifest.files.values())
    typer.echo(f"{chosen}: {len(manifest.files) + 1} files, {size_bytes / 1e6:.1f} MB, verified")


def _pretrained(method: str) -> Path:
    found = sorted(PRETRAINED.glob(f"{method}-*.safetensors"))
    if not found:
        raise CheckpointError(f"method {method}: no pretrained checkpoint in {PRETRAINED}; pass --checkpoint FILE.")
    return found[0]


def _choices(values: list[str], allowed: tuple[T, ...], flag: str) -> tuple[T, ...]:
    """The values without repeats, each one of `allowed`."""
    wrong = [value for value in values if value not in allowed]
    if wrong:
        raise SalienceError(f"{flag} {', '.join(wrong)}: choose from {', '.join(allowed)}.")
    return tuple(allowed[allowed.index(value)] for value in dict.fromkeys(values))
