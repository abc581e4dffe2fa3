import inspect

import salience
import salience.runtime
from salience.runtime.errors import SalienceError


def test_the_public_names_are_these() -> None:
    assert salience.runtime.__all__ == [
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


def test_every_public_name_exists_and_is_documented() -> None:
    for name in salience.runtime.__all__:
        assert inspect.getdoc(getattr(salience.runtime, name)), name


def test_every_error_is_a_salience_error_and_in_the_tree() -> None:
    from salience.runtime import errors

    classes = [c for c in vars(errors).values() if inspect.isclass(c)]
    assert all(issubclass(c, SalienceError) for c in classes)
    assert all(c.__name__ in (errors.__doc__ or "") for c in classes if c is not SalienceError)


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert salience.__version__ == version("salience")
