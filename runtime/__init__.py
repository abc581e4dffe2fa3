"""Serve bundles: `load` one, `predict` pictures or `promote` priors, get saliency maps. Never imports torch."""

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
from .methods.lps import PromoterDetector
from .saliency import SaliencyMap

__all__ = [
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "DataError",
    "Detector",
    "EngineError",
    "ExportError",
    "ImageError",
    "Prepared",
    "PromoterDetector",
    "SalienceError",
    "SaliencyMap",
    "VerificationError",
    "load",
]
