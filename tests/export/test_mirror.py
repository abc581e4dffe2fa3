"""The option `mirror`: what is served is the mean of a picture's map and of its mirror image's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from salience.export.graphs import GRAPHS
from salience.export.tracing import trace
from salience.runtime.tables import entry
from salience.training.checkpoint import load_checkpoint
from tests.conftest import SIZE

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("method", ["multis", "arn"])
def test_the_map_is_the_mean_of_both(checkpoints: dict[str, Path], method: str) -> None:
    _, network = load_checkpoint(checkpoints[method])
    export = entry(GRAPHS, method, what="method")(mirror=True)
    (graph,) = export.graphs(network, SIZE)
    session = onnxruntime.InferenceSession(trace(graph, "fp32").SerializeToString())
    for batch in (1, 3):
        image = torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            plain, mirrored = network(image).saliency, network(image.flip(3)).saliency.flip(3)
            expected = export.predict(network, image, np.zeros((*SIZE, 3), np.uint8))
        assert torch.equal(expected, (plain + mirrored) / 2)
        assert (plain - mirrored).abs().max() > 1e-2
        (found,) = session.run(None, {"input": image.numpy()})
        assert np.abs(found - expected.numpy()).max() < 1e-4
        (turned,) = session.run(None, {"input": image.flip(3).numpy()})
        assert np.abs(turned - found[..., ::-1]).max() < 1e-4
