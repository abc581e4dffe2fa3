"""The model that clients call; becomes `model.py` in the repository.

`salience` must be installed in the Python that the server runs.
"""

from salience.runtime.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
