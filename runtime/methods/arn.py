"""`arn`: one graph, from the picture to the map."""

from ..detector import SaliencyDetector


class AttentionRecurrentDetector(SaliencyDetector):
    """Serves ARN, the network of recurrent side outputs and self-attention."""
