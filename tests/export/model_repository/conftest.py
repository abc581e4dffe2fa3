"""Fixtures of the tests of model repositories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.export.model_repository.configs import Serving
from salience.export.model_repository.repository import write_repository
from salience.runtime.bundle import Bundle


@pytest.fixture
def write(bundle_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Method and changes of `Serving` -> a repository of its small bundle, where the model is called "eye"."""

    def written(method: str, **changes: Any) -> Path:
        serving = {"name": "eye", "precision": "fp32", "device": "cpu"} | changes
        write_repository(Bundle(bundle_of(method)), tmp_path / "models", Serving(**serving))
        return tmp_path / "models"

    return written
