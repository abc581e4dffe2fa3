"""Every error that `salience` raises on purpose.

    SalienceError
    ├── ImageError         a picture cannot be read, or is larger than allowed
    ├── BundleError        a bundle is missing, damaged, tampered with, or of another format version
    ├── EngineError        an engine rejects its input or fails while running
    │   └── BackendUnavailableError   what was asked for is not installed or not present on this machine
    ├── CheckpointError    a checkpoint or weight file does not fit
    ├── DataError          a data set, a split or a set of predictions is not what it should be
    └── ExportError        a graph, engine or bundle could not be made
        └── VerificationError         it was made, and differs from PyTorch by more than the tolerance

A message is one sentence for the user: subject, what was found, what was expected, and the remedy.
"""


class SalienceError(Exception):
    """Base of all errors below; catching it catches every mistake a user can mend."""


class ImageError(SalienceError):
    """A picture cannot be read or exceeds a limit."""


class BundleError(SalienceError):
    """A bundle is missing, damaged or of another format version."""


class EngineError(SalienceError):
    """An engine was fed wrongly or failed while running."""


class BackendUnavailableError(EngineError):
    """A backend, provider, precision or device that was asked for is not available."""


class CheckpointError(SalienceError):
    """A checkpoint or weight file does not fit the network."""


class DataError(SalienceError):
    """A data set, a split file or a folder of predictions is incomplete."""


class ExportError(SalienceError):
    """A graph, an engine or a bundle could not be made."""


class VerificationError(ExportError):
    """A graph or engine differs from PyTorch by more than its tolerance."""
