"""Write a bundle: files, checksums, manifest; whole or not at all."""

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from salience.runtime.errors import ExportError
from salience.runtime.manifest import MANIFEST_FILE, FileEntry, Manifest


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place when the block ends well.

    A build that fails or is killed leaves the old bundle, or none, never half a one.

    Raises:
        ExportError: `target` is something else than a bundle or an empty folder.
    """
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    fresh, old = (target.with_name(f".{target.name}-{word}-{mark}") for word in ("new", "old"))
    fresh.mkdir()
    try:
        yield fresh
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_target(target: Path) -> None:
    """Raise ExportError where writing a bundle to `target` would delete something that is none."""
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST_FILE).is_file()):
        raise ExportError(f"output {target}: exists and is not a bundle; choose another folder or remove it.")


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and checksum of every file of `folder` but the manifest, by name."""
    files = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST_FILE]
    return {path.name: FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size) for path in files}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`; everything else must be in `folder` already."""
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1) + "\n")
