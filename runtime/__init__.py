"""Serve bundles: `load` one, give it pictures, priors or groups, get saliency maps. Never imports torch."""

from .bundle import Bundle
from .detector import Detector, Prepared, load
from .errors import (
    BackendUnavailableError,
    BundleError,
    CheckpointError,
    DataError,
    EngineError,
    ExportError,
    ImageError,
    SalienceError,
    VerificationError,
)
from .methods.cgd import ClampedDescentDetector, ObjectMap
from .methods.gicd import GroupDetector
from .methods.lps import PromoterDetector
from .saliency import SaliencyMap

__all__ = [
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "ClampedDescentDetector",
    "DataError",
    "Detector",
    "EngineError",
    "ExportError",
    "GroupDetector",
    "ImageError",
    "ObjectMap",
    "Prepared",
    "PromoterDetector",
    "SalienceError",
    "SaliencyMap",
    "VerificationError",
    "load",
]
