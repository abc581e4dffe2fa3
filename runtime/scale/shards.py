"""Tar shards of pictures as WebDataset lays them out: members are read in memory, never extracted."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..errors import DataError
from ..files import atomic_path
from ..images import SUFFIXES

# No encoded picture needs more.
LIMIT_BYTES = 256 << 20


class _BoundedFile(io.BufferedReader):
    """A file that refuses to read more at once than a picture may have, as a forged header asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As of every file."""
        if size is None or not 0 <= size <= LIMIT_BYTES + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header asks for too much")
        return super().read(size)


def read_pictures(path: Path, extension: str | None) -> Iterator[tuple[str, bytes | DataError]]:
    """Key and encoded picture of every sample, in order; an error in place of what cannot be given.

    A member `folder/name.EXTENSION` belongs to the sample of key `folder/name`; the name ends at its first dot. The
    first picture of a key counts, each further one is an error; so is a key that leaves its folder or is not portable,
    a picture above `LIMIT_BYTES`, a link, and, with an empty key, a shard that is damaged or holds no picture.

    Args:
        path: the shard, not compressed.
        extension: of the pictures, such as "jpg" or "input.png"; None for any ending of a picture.
    """
    taken: set[str] = set()
    key = ""
    try:
        with _BoundedFile(io.FileIO(path)) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in _members(archive):
                key = _key(member.name, extension) or ""
                if key:
                    yield key, _problem(path, member, key, taken) or _content(archive, member)
                    taken.add(key)
            key = ""
            _check_end(stream, archive.offset)
    # On damaged headers tarfile raises errors of many kinds, ValueError and OverflowError among them.
    except Exception as error:
        yield key, DataError(f"shard {path}: cannot be read to its end ({error}); is the file whole?")
        return
    if not taken:
        what = f"ending in .{extension}" if extension else "of a known ending; choose one with --column, as seg.png"
        yield "", DataError(f"shard {path}: holds no picture {what}.")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    last = -1
    while (member := archive.next()) is not None:
        # A forged size may lead back to where the reading was.
        if member.offset <= last or member.size < 0:
            raise tarfile.ReadError("a header leads backwards")
        last = member.offset
        # tarfile keeps every header that it has read.
        archive.members.clear()  # type: ignore[attr-defined]
        yield member


def _key(name: str, extension: str | None) -> str | None:
    """The key of a picture, None for any other member."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    found = ending.lower()
    wanted = found == extension.lower().lstrip(".") if extension else f".{found}" in SUFFIXES
    return str(PurePosixPath(f"{folder}{slash}{stem}")) if stem and wanted else None


def _problem(path: Path, member: tarfile.TarInfo, key: str, taken: set[str]) -> DataError | None:
    if key.startswith("/") or ".." in PurePosixPath(key).parts or "\\" in key:
        return DataError(f"shard {path}: key {key!r} leaves its folder; expected names such as folder/name.jpg.")
    if key in taken:
        return DataError(f"shard {path}: key {key!r} has a picture already; name the one to take with --column.")
    if not member.isfile():
        return DataError(f"shard {path}: {member.name!r} is a link or a folder; expected a file.")
    if member.size > LIMIT_BYTES:
        return DataError(f"shard {path}: {member.name!r} has {member.size} bytes, the limit is {LIMIT_BYTES}.")
    return None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _check_end(stream: io.BufferedReader, offset: int) -> None:
    """Raise where the members do not end with tarfile's own mark; it takes damage after the first one for the end."""
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("damaged or cut off")


class ShardWriter:
    """Adds pictures to an open shard."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, key: str, png: bytes) -> None:
        """Write `KEY.png`; equal inputs give equal bytes."""
        member = tarfile.TarInfo(f"{key}.png")
        member.size = len(png)
        self._archive.addfile(member, io.BytesIO(png))
        self._archive.members.clear()  # type: ignore[attr-defined]


@contextmanager
def write_shard(path: Path) -> Iterator[ShardWriter]:
    """A new shard that takes its place when the block ends well."""
    with atomic_path(path) as temporary, tarfile.open(temporary, "w") as archive:
        yield ShardWriter(archive)
