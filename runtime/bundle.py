"""Open a bundle: parse its manifest, check every file against it, hand out paths."""

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from .errors import BundleError
from .manifest import HOST_GRAPHS, MANIFEST_FILE, VERIFICATION_FILE, Manifest, Precision, Verification

DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"
_MANIFEST_LIMIT_BYTES = 4 << 20


class Bundle:
    """A folder whose files are what its manifest says.

    Args:
        path: the folder.

    Raises:
        BundleError: no bundle, another format version, a file missing, changed, or outside the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        for name, entry in self.manifest.files.items():
            _check_file(self.path / name, entry.sha256, entry.bytes)
        listed = {file for graph in self.manifest.graphs.values() for file in graph.files.values()}
        listed |= {engine.file for engine in self.manifest.engines}
        unlisted = sorted(listed - self.manifest.files.keys())
        if unlisted:
            raise BundleError(f"bundle {self.path}: {', '.join(unlisted)} has no checksum; build the bundle again.")

    def graph_file(self, graph: str, precision: Precision) -> Path:
        """The ONNX file of a graph.

        Raises:
            BundleError: the bundle lacks the graph or the precision.
        """
        entry = self.manifest.graphs.get(graph)
        if entry is None:
            raise BundleError(f"bundle {self.path}: no graph {graph!r}; it has {', '.join(self.manifest.graphs)}.")
        if precision not in entry.files:
            raise BundleError(
                f"bundle {self.path}: {graph} has no {precision} file, only {', '.join(entry.files)}; "
                f"build it with: python export/build_engine.py {self.manifest.method} --precision {precision}"
            )
        return self.path / entry.files[precision]

    def precisions(self) -> tuple[Precision, ...]:
        """The precisions of the method's own graphs."""
        found: dict[Precision, None] = {}
        for name, graph in self.manifest.graphs.items():
            if name not in HOST_GRAPHS:
                found |= dict.fromkeys(graph.files)
        return tuple(found)

    def verification(self) -> Verification | None:
        """What was verified when the bundle was built; None if it holds no record."""
        path = self.path / VERIFICATION_FILE
        if VERIFICATION_FILE not in self.manifest.files:
            return None
        try:
            return Verification.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise BundleError(f"bundle {self.path}: {VERIFICATION_FILE} is damaged ({_problems(error)}).") from error


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    try:
        if path.stat().st_size > _MANIFEST_LIMIT_BYTES:
            raise BundleError(f"bundle {folder}: its manifest is larger than {_MANIFEST_LIMIT_BYTES >> 20} MB.")
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"bundle {folder}: no readable {MANIFEST_FILE} ({error.strerror}); expected a folder made by "
            "export/build_engine.py."
        ) from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(
            f"bundle {folder}: its manifest does not fit this version of salience ({_problems(error)}); "
            "build the bundle again."
        ) from error


def _check_file(path: Path, sha256: str, size: int) -> None:
    # A link may point anywhere, so the file itself must lie in the folder.
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"bundle {path.parent}: {path.name} is missing or a link; copy the whole folder again.")
    try:
        found_size = path.stat().st_size
        if found_size == size:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return
    except OSError as error:
        raise BundleError(f"bundle {path.parent}: {path.name} cannot be read ({error.strerror}).") from error
    raise BundleError(
        f"bundle {path.parent}: {path.name} is damaged (its checksum or size, {found_size} bytes, is not the "
        f"manifest's, {size} bytes); copy or build the bundle again."
    )


def _problems(error: ValidationError) -> str:
    found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'text'}: {e['msg']}" for e in error.errors()[:3])
    # A hostile file's names may hold line breaks.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in found)
