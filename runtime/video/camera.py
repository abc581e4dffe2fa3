"""A camera as a video: the system's own capture device, recorded until told to stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType

from ..errors import DataError
from .containers import plain_errors
from .reading import Video


def camera_device(name: str) -> tuple[str, str]:
    """(input format, device) of a camera, given by number or, as the system has it, by name.

    Raises:
        DataError: there is none of that name.
    """
    if sys.platform == "darwin":
        return "avfoundation", name
    if sys.platform == "win32":
        return "dshow", f"video={name}"
    device = Path(f"/dev/video{name}" if name.isdecimal() else name)
    if not device.is_char_device():
        raise DataError(f"camera {name}: there is no {device} here; is a camera connected?")
    return "v4l2", str(device)


@contextmanager
def open_camera(name: str, seconds: float | None) -> Iterator[Video]:
    """A camera's video, without sound, which ends after so many seconds or at the first Ctrl-C.

    Raises:
        DataError: there is no such camera, or it gives no frames.
    """
    import av

    format_name, device = camera_device(name)
    with plain_errors(f"camera {name}: cannot be opened"):
        container = av.open(device, "r", format=format_name)
    with container, _stopping_at(seconds) as stop:
        yield Video(container, f"camera {name}", stop=stop)


@contextmanager
def _stopping_at(seconds: float | None) -> Iterator[Callable[[float], bool]]:
    """Whether to stop at a time: it is past `seconds`, or Ctrl-C was pressed; pressed twice it interrupts as ever."""
    pressed = Event()

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, press)
    try:
        yield lambda time_s: pressed.is_set() or (seconds is not None and time_s >= seconds)
    finally:
        signal.signal(signal.SIGINT, previous)
