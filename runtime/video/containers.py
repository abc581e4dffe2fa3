"""Video files: their endings, the limits on them, and errors of the library that reads and writes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BackendUnavailableError, DataError
from ..images import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
MAX_STREAMS = 100
# Only files in these containers are opened, by no protocol but the file system's: a playlist under a video's name,
# which may point to any file or address, is refused.
_FORMATS = "mov,matroska,avi"


def is_video(path: str | Path) -> bool:
    """Whether a path ends like a video."""
    return Path(path).suffix.lower() in SUFFIXES


def require_library() -> None:
    """Raise BackendUnavailableError where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError("video: PyAV is not installed; pip install 'salience[video]'.") from error


@contextmanager
def plain_errors(subject: str) -> Iterator[None]:
    """Turn the library's errors into a DataError that says what `subject` suffered."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise DataError(f"{subject} ({reason(error)}).") from error


def reason(error: Exception) -> str:
    """What the library says of an error, without codes and file names."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def open_file(path: Path) -> "InputContainer":
    """Open a video file for reading.

    Raises:
        DataError: it is missing, or no video of a known container.
    """
    import av

    if not path.is_file():
        raise DataError(f"video {path}: no such file.")
    options = {
        "format_whitelist": _FORMATS,
        "protocol_whitelist": "file",
        "max_streams": str(MAX_STREAMS),
        "max_pixels": str(MAX_PIXELS),
    }
    with plain_errors(f"video {path}: cannot be read; is it whole, and one of {', '.join(SUFFIXES)}?"):
        return av.open(f"file:{path}", "r", options=options, metadata_errors="replace")
