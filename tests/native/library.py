"""The C interface of the native library, by ctypes, as a program of another language would bind it."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_size_t, c_uint8, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salience.runtime import BackendUnavailableError, BundleError, EngineError, ImageError, SalienceError

# By status, see salience.h.
ERRORS: dict[int, type[Exception]] = {
    1: ImageError,
    2: BundleError,
    3: EngineError,
    4: BackendUnavailableError,
    5: SalienceError,
    6: RuntimeError,
}


class Picture(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("height", c_size_t), ("width", c_size_t), ("row_bytes", c_size_t))


class Prior(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("height", c_size_t), ("width", c_size_t))


class Box(ctypes.Structure):
    _fields_ = (("top", c_size_t), ("left", c_size_t), ("bottom", c_size_t), ("right", c_size_t))


class LoadOptions(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("precision", c_char_p),
        ("device", c_char_p),
        ("max_pixels", c_size_t),
        ("threads", c_int),
        ("fused_kernels", c_int),
    )


class GroupOptions(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("memory_bytes", c_size_t), ("batch", c_size_t))


class PromoteOptions(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("iterations", c_int), ("keep_empty", c_int))


class Parameter(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("value", c_char_p))


class LocateOptions(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("preset", c_char_p), ("changes", POINTER(Parameter)), ("change_count", c_size_t))


# Thresholds at which masks and boxes are compared, beside the default.
LIMITS = (0.0, 0.1, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class NativeMap:
    """A map copied out: (H, W) float32, (H, W) uint8, and of `locate` the class and the likeliest ones.

    `masks` and `boxes` are by threshold: None for the default, and `LIMITS`. A box is as in Python.
    """

    values: NDArray[np.float32]
    grey: NDArray[np.uint8]
    threshold: float
    masks: dict[float | None, NDArray[np.bool_]]
    boxes: dict[float | None, tuple[int, int, int, int] | None]
    label: str | None = None
    classes: tuple[tuple[str, float], ...] = ()


class Library:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.functions.salience_last_error.restype = c_char_p
        self.functions.salience_version.restype = c_char_p
        for name in ("salience_detector_free", "salience_map_free"):
            getattr(self.functions, name).argtypes = (c_void_p,)
            getattr(self.functions, name).restype = None

    def call(self, name: str, *arguments: Any) -> None:
        """Raise the error that the status stands for."""
        status = getattr(self.functions, name)(*arguments)
        if status:
            raise ERRORS[status](self.functions.salience_last_error().decode())

    def load(
        self, bundle: Path, *, precision: str = "auto", device: str = "cpu", threads: int = 0, fused: bool = True
    ) -> "NativeDetector":
        options = LoadOptions(
            ctypes.sizeof(LoadOptions), precision.encode(), device.encode(), 150_000_000, threads, fused
        )
        handle = c_void_p()
        self.call("salience_load", str(bundle).encode(), byref(options), byref(handle))
        return NativeDetector(self, handle)


class NativeDetector:
    """A detector of the library; freed with this object."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        self._library, self._handle = library, handle

    def __del__(self) -> None:
        self._library.functions.salience_detector_free(self._handle)

    def text(self, name: str) -> str:
        """ "method", "precision" or "backend"."""
        found = c_char_p()
        self._library.call(f"salience_detector_{name}", self._handle, byref(found))
        assert found.value is not None
        return found.value.decode()

    def predict(self, image: NDArray[np.uint8]) -> NativeMap:
        return self._maps(1, "salience_predict", byref(picture(image)))[0]

    def predict_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[NativeMap]:
        return self._maps(len(images), "salience_predict_batch", pictures(images), c_size_t(len(images)))

    def predict_group(
        self, images: Sequence[NDArray[np.uint8]], *, memory_bytes: int = 512_000_000, batch: int = 1
    ) -> list[NativeMap]:
        options = GroupOptions(ctypes.sizeof(GroupOptions), memory_bytes, batch)
        count = len(images)
        return self._maps(count, "salience_predict_group", pictures(images), c_size_t(count), byref(options))

    def promote(
        self, image: NDArray[np.uint8], prior: NDArray[np.float32], iterations: int = 1, *, keep_empty: bool = False
    ) -> NativeMap:
        options = PromoteOptions(ctypes.sizeof(PromoteOptions), iterations, keep_empty)
        held = prior_of(prior)
        return self._maps(1, "salience_promote", byref(picture(image)), byref(held), byref(options))[0]

    def promote_steps(self, image: NDArray[np.uint8], prior: NDArray[np.float32], iterations: int) -> list[NativeMap]:
        options = PromoteOptions(ctypes.sizeof(PromoteOptions), iterations, 0)
        arguments = (byref(picture(image)), byref(prior_of(prior)), byref(options), c_size_t(iterations))
        return self._maps(iterations, "salience_promote_steps", *arguments)

    def locate(
        self,
        image: NDArray[np.uint8],
        target: str | None = None,
        *,
        preset: str = "default",
        changes: Mapping[str, str] | None = None,
    ) -> NativeMap:
        found = [Parameter(name.encode(), value.encode()) for name, value in (changes or {}).items()]
        options = LocateOptions(
            ctypes.sizeof(LocateOptions), preset.encode(), (Parameter * len(found))(*found), len(found)
        )
        name = None if target is None else target.encode()
        return self._maps(1, "salience_locate", byref(picture(image)), c_char_p(name), byref(options))[0]

    def _maps(self, count: int, name: str, *arguments: Any) -> list[NativeMap]:
        handles = (c_void_p * max(count, 1))()
        self._library.call(name, self._handle, *arguments, handles)
        try:
            return [self._copied(c_void_p(handle)) for handle in handles[:count]]
        finally:
            for handle in handles[:count]:
                self._library.functions.salience_map_free(handle)

    def _copied(self, handle: c_void_p) -> NativeMap:
        call: Callable[..., None] = self._library.call
        height, width, threshold = c_size_t(), c_size_t(), c_double()
        call("salience_map_size", handle, byref(height), byref(width))
        shape = (height.value, width.value)
        values, grey = np.empty(shape, np.float32), np.empty(shape, np.uint8)
        size = c_size_t(values.size)
        call("salience_map_values", handle, values.ctypes.data_as(POINTER(c_float)), size)
        call("salience_map_grey", handle, grey.ctypes.data_as(POINTER(c_uint8)), size)
        call("salience_map_threshold", handle, byref(threshold))
        masks = {limit: self._mask(handle, shape, limit) for limit in (None, *LIMITS)}
        boxes = {limit: self._box(handle, limit) for limit in (None, *LIMITS)}
        return NativeMap(values, grey, threshold.value, masks, boxes, *self._classes(handle))

    def _mask(self, handle: c_void_p, shape: tuple[int, int], limit: float | None) -> NDArray[np.bool_]:
        mask = np.empty(shape, np.uint8)
        buffer, given = mask.ctypes.data_as(POINTER(c_uint8)), None if limit is None else byref(c_double(limit))
        self._library.call("salience_map_mask", handle, given, buffer, c_size_t(mask.size))
        return mask.astype(bool)

    def _box(self, handle: c_void_p, limit: float | None) -> tuple[int, int, int, int] | None:
        box = Box()
        given = None if limit is None else byref(c_double(limit))
        self._library.call("salience_map_box", handle, given, byref(box))
        return (box.top, box.left, box.bottom, box.right) if box.bottom else None

    def _classes(self, handle: c_void_p) -> tuple[str | None, tuple[tuple[str, float], ...]]:
        if self.text("method") != "cgd":
            return None, ()
        label = c_char_p()
        try:
            self._library.call("salience_map_label", handle, byref(label))
        except SalienceError:
            return None, ()
        found = []
        for rank in range(3):
            name, probability = c_char_p(), c_double()
            self._library.call("salience_map_class", handle, c_size_t(rank), byref(name), byref(probability))
            found.append(((name.value or b"").decode(), probability.value))
        return (label.value or b"").decode(), tuple(found)


def picture(image: NDArray[np.uint8]) -> Picture:
    """A view: the array must live as long."""
    height, width = image.shape[:2]
    return Picture(image.ctypes.data, height, width, image.strides[0])


def pictures(images: Sequence[NDArray[np.uint8]]) -> "ctypes.Array[Picture]":
    return (Picture * len(images))(*map(picture, images))


def prior_of(values: NDArray[np.float32]) -> Prior:
    return Prior(values.ctypes.data, *values.shape)
