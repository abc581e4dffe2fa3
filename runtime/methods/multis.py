"""`multis`: one graph, from the picture to the fused map."""

from ..detector import SaliencyDetector


class MultiScaleDetector(SaliencyDetector):
    """Serves MultiS, the multi-scale network with predicted scale weights and maxout fusion."""
