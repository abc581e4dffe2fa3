"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from ..low_level import PresetName

BundleOption = Annotated[Path | None, typer.Option(help="Folder made by build_engine.py. [the bundle in the package]")]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Of masks. [half of the map's maximum, at least .3]")
]
ClassOption = Annotated[
    str | None, typer.Option("--class", help="cgd: the class to find, by name or number. [the one seen]")
]
PresetOption = Annotated[PresetName, typer.Option(help="cgd: parameters to start from.")]
ParameterOption = Annotated[
    list[str] | None, typer.Option("--set", help="cgd: NAME=VALUE, such as iterations=5; may be repeated.")
]
