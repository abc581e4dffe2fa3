"""`cgd` is one graph, `descend`: a step of clamped gradient descent on the picture, forward and backward pass in one.

Its first call also classifies: at iteration 0 the reference logits are those of the picture itself, and where no
class is given the target becomes the one of the largest logit. Both come out again, to be fed back.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salience.runtime.errors import CheckpointError
from salience.runtime.low_level import PRESETS, saliency_map
from salience.runtime.manifest import TensorSpec
from salience.runtime.methods.cgd import loop_settings
from salience.training.backbone import ClassifierName, load_weights
from salience.training.checkpoint import CheckpointHeader, load_checkpoint
from salience.training.networks.cgd import IMAGENET_CLASSES, Classifier, ClassifierSettings
from salience.training.preprocessing import Preprocessing

from ..graph import Graph, MethodExport

# Of the error signal on its way back, so that it stays in the range of fp16; a power of two changes no digit.
SIGNAL_SCALE = 256.0
_TINY = 1e-20
# The step of the checks: so long that the picture is lost beside it and the gradient alone is compared.
CHECKED_STEP = 1e6


class Descend(nn.Module):
    """X(t+1) = X(t) - step * the rectified gradient of F, eq. 1 to 3; see `forward`."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        image: Tensor,
        reference: Tensor,
        target: Tensor,
        iteration: Tensor,
        gamma: Tensor,
        step: Tensor,
        decay: Tensor,
        scaling: Tensor,
        bounds: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step.

        Args:
            image: X(t), (N, 3, H, W) fp32 RGB, 0 to 255.
            reference: o, the logits of X(0), (N, K); of no effect at iteration 0.
            target: weights of the classes, 1 for l and 0 for the others, (N, K); all 0: the class of the largest logit.
            iteration: t, (1,) int64.
            gamma: weight of the clamped logits, (1,).
            step: epsilon, (1,).
            decay: what the step is multiplied by in each iteration, (1,).
            scaling: (3,) weights of the gradient over its largest value in the picture, of the gradient as it is, and
                of the gradient stretched to [0, 1] in each channel.
            bounds: (2,) least and largest value of X.

        Returns:
            X(t+1), the reference, the target, t + 1, the logits a (N, K) and the cost F (N,).
        """
        logits, pull, *_ = torch.func.vjp(self._logits, image)
        reference = torch.where(iteration == 0, logits, reference)
        places = torch.arange(logits.shape[1], device=logits.device)
        largest = (places == logits.argmax(dim=1, keepdim=True)).to(logits.dtype)
        target = torch.where(target.sum(dim=1, keepdim=True) > 0, target, largest)
        clamped = (1 - target) * (logits - reference)
        (gradient,) = pull((target + gamma * clamped) * SIGNAL_SCALE)
        direction = _scaled((gradient / SIGNAL_SCALE).relu(), scaling)
        moved = image - step * decay ** iteration.to(step.dtype) * direction
        cost = (target * logits).sum(dim=1) + gamma / 2 * clamped.square().sum(dim=1)
        bounded = torch.minimum(torch.maximum(moved, bounds[0]), bounds[1])
        return bounded, reference, target, iteration + 1, logits, cost

    def _logits(self, image: Tensor) -> Tensor:
        """Of the picture's type, by a classifier of any."""
        normalised = self.network.normalise(image)
        kind = next(self.network.backbone.parameters()).dtype
        found: Tensor = self.network.backbone(normalised.to(kind))
        return found.to(image.dtype)


def _scaled(gradient: Tensor, scaling: Tensor) -> Tensor:
    """See `Descend.forward`; `gradient` (N, 3, H, W) is not negative."""
    largest = gradient.amax(dim=(1, 2, 3), keepdim=True)
    high, low = gradient.amax(dim=(2, 3), keepdim=True), gradient.amin(dim=(2, 3), keepdim=True)
    relative, channel = gradient / largest.clamp(min=_TINY), (gradient - low) / (high - low).clamp(min=_TINY)
    return scaling[0] * relative + scaling[1] * gradient + scaling[2] * channel


class ClampedDescentExport(MethodExport):
    """`classifier` says that the checkpoint is a file of torchvision's weights for it, of the 1000 ImageNet classes.

    `names` is then a text file of the classes' names, one a line, in place of torchvision's.
    """

    follows_gradients = True

    classifier: ClassifierName | None = None
    names: Path | None = None

    def load(self, checkpoint: Path) -> tuple[CheckpointHeader, nn.Module]:
        """A checkpoint, or weights of `classifier`, which "torchvision" downloads."""
        if self.classifier is None:
            if self.names is not None:
                raise CheckpointError(f"names {self.names}: go with the option classifier; a checkpoint has its own.")
            try:
                return load_checkpoint(checkpoint)
            except CheckpointError as error:
                raise CheckpointError(
                    f"{error} Weights as torchvision has them need --option classifier=NAME."
                ) from error
        settings: dict[str, Any] = {"backbone": self.classifier}
        if self.names is not None:
            settings["classes"] = _read_names(self.names)
        network = Classifier(ClassifierSettings.model_validate(settings))
        load_weights(network.backbone, str(checkpoint), architecture=self.classifier)
        header = CheckpointHeader(
            method="cgd",
            network=network.settings.model_dump(),
            preprocessing=Preprocessing(**Classifier.input_scale),
            training={"backbone_weights": checkpoint.name},
        )
        return header, network.eval()

    def classes(self, network: Classifier) -> tuple[str, ...]:
        """The classifier's."""
        return network.settings.classes

    def graphs(self, network: Classifier, size: tuple[int, int]) -> list[Graph]:
        """`descend`."""
        count = len(network.settings.classes)
        image = TensorSpec(name="image", dtype="float32", shape=("batch", 3, *size))
        reference = TensorSpec(name="reference", dtype="float32", shape=("batch", count))
        target = reference.model_copy(update={"name": "target"})
        iteration = TensorSpec(name="iteration", dtype="int64", shape=(1,))
        settings = {"gamma": 1, "step": 1, "decay": 1, "scaling": 3, "bounds": 2}
        fed_back = (image, reference, target, iteration)
        descend = Descend(network)
        return [
            Graph(
                name="descend",
                module=descend,
                reference=lambda images: descend(*_check_feeds(network, images)),
                inputs=(
                    *fed_back,
                    *(TensorSpec(name=name, dtype="float32", shape=(length,)) for name, length in settings.items()),
                ),
                outputs=(
                    *(spec.model_copy(update={"name": f"next_{spec.name}"}) for spec in fed_back),
                    reference.model_copy(update={"name": "logits"}),
                    TensorSpec(name="cost", dtype="float32", shape=("batch",)),
                ),
                feeds=lambda images: _check_feeds(network, images),
                minds_types=True,
                takes_gradients=True,
                int8_outputs=("logits",),  # the forward pass: gradients in int8 lose the object
            )
        ]

    def predict(self, network: Classifier, tensor: Tensor, image: NDArray[np.uint8]) -> Tensor:
        """The map of the class that the classifier sees, by autograd, with the default parameters."""
        preset = PRESETS["default"]
        settings = [torch.from_numpy(values) for values in loop_settings(preset.descent).values()]
        blank = torch.zeros(1, len(network.settings.classes))
        state: tuple[Tensor, ...] = (tensor, blank, blank, torch.tensor([0]))
        descend = Descend(network)
        for _ in range(preset.descent.iterations):
            state = descend(*state, *settings)[:4]
        found = saliency_map(tensor[0].numpy(), state[0][0].numpy(), refinement=preset.refinement)
        return torch.from_numpy(found)[None, None]


def _check_feeds(network: Classifier, images: Tensor) -> tuple[Tensor, ...]:
    """A later step, with every term of the cost at work: the reference is another picture's."""
    with torch.no_grad():
        logits, others = network(images).logits, network(images.flip(3) * 0.8).logits
    target = torch.zeros_like(logits).scatter(1, logits.argmax(dim=1, keepdim=True), 1.0)
    numbers = ([0.5], [CHECKED_STEP], [0.9], [0.5, 0.0, 0.5], [-1e30, 1e30])
    return images, others, target, torch.tensor([1]), *(torch.tensor(number) for number in numbers)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"names {path}: cannot be read as text ({error}).") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != IMAGENET_CLASSES:
        raise CheckpointError(f"names {path}: got {len(names)} lines, expected {IMAGENET_CLASSES}, one a class.")
    return names
