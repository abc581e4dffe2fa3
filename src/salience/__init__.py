"""Salient-object detection from training to served maps.

Three stages, each a package of its own: `salience.training` fits a network, `salience.export`
turns its checkpoint into a bundle of verified graphs and engines, `salience.runtime` serves bundles.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("salience")
except PackageNotFoundError:
    __version__ = "0.0.0+uninstalled"

__all__ = ["__version__"]
