"""`multis`: one graph, from the picture to the fused map."""

import numpy as np
from numpy.typing import NDArray

from ..detector import Detector


class MultiScaleDetector(Detector):
    """Serves MultiS, the multi-scale network with predicted scale weights and maxout fusion."""

    graphs = ("saliency",)

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.engines["saliency"].run({"input": batch})["saliency"]
