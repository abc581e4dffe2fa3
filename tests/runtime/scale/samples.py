"""Inputs of these tests: small photographs, shards and tables of them."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import Detector

BROKEN = b"no picture"


def jpegs(photos: Mapping[str, NDArray[np.uint8]], count: int) -> list[bytes]:
    """Encoded cuts of a photograph, no two equal."""
    found = []
    for index in range(count):
        buffer = io.BytesIO()
        cut = photos["astronaut"][index : index + 90, 100 + index : 220]
        Image.fromarray(cut).save(buffer, "JPEG", quality=95)
        found.append(buffer.getvalue())
    return found


def write_shard(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar file of named contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read_shard(path: Path) -> list[tuple[str, bytes]]:
    """Names and contents of a tar file."""
    with tarfile.open(path) as archive:
        return [(member.name, content(archive, member)) for member in archive.getmembers()]


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def write_table(path: Path, *, rows: int, **columns: Any) -> Path:
    """A Parquet file with row groups of so many rows."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)
    return path


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def is_map_of(detector: Detector, png: bytes | Path, picture: bytes | Path, kind: Any = "map") -> bool:
    """Whether a PNG is what the detector makes of a picture, pixel for pixel."""
    with Image.open(io.BytesIO(png) if isinstance(png, bytes) else png) as image:
        found = np.asarray(image)
    return np.array_equal(found, detector.predict(picture).render(kind))
