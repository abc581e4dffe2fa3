"""One backbone interface for every network: an image becomes five feature levels F1..F5."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from salience.runtime.errors import CheckpointError

BackboneName = Literal["vgg16", "mobilenet_v2"]
ClassifierName = Literal["vgg16", "mobilenet_v2", "squeezenet1_0"]


@dataclass(frozen=True)
class Level:
    """A feature level: `index` of the torchvision module that yields it, its stride and channels."""

    index: int
    stride: int
    channels: int


# vgg16: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3. mobilenet_v2: the last block of each resolution.
LEVELS: dict[str, tuple[Level, ...]] = {
    "vgg16": (Level(3, 1, 64), Level(8, 2, 128), Level(15, 4, 256), Level(22, 8, 512), Level(29, 16, 512)),
    "mobilenet_v2": (
        Level(1, 2, 16),
        Level(3, 4, 24),
        Level(6, 8, 32),
        Level(13, 16, 96),
        Level(17, 32, 320),
    ),
}

# What the classifier's own last layers take, before any pooling.
HEAD_LEVELS = {"vgg16": Level(29, 16, 512), "mobilenet_v2": Level(18, 32, 1280)}


class Backbone(nn.Module):
    """The convolutional part of a torchvision classifier, cut after its last level.

    Parameter names are torchvision's (`features.0.weight`, ...), so its weight files load as they are.

    Args:
        name: an entry of `LEVELS`.
        coarsest: no level gets a larger stride; from there on layers are dilated instead. None: as it is.
        head: keep the classifier's last layers as `classifier`; then the last level is what they are made for.
        weights: see `load_weights`; None leaves the initial random values.
    """

    def __init__(
        self,
        name: BackboneName,
        *,
        coarsest: int | None = None,
        head: bool = False,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.frozen = 0
        levels = (*LEVELS[name][:-1], HEAD_LEVELS[name]) if head else LEVELS[name]
        self.levels = tuple(replace(v, stride=min(v.stride, coarsest or v.stride)) for v in levels)
        # The classifier is made on the meta device: VGG16's alone takes 0.5 GB and is seldom needed.
        with torch.device("meta"):
            model = getattr(torchvision.models, name)(weights=None)
        self.features = model.features[: self.levels[-1].index + 1].to_empty(device="cpu")
        self.features.apply(_reset)
        if head:
            self.classifier = model.classifier.to_empty(device="cpu")
            self.classifier.apply(_reset)
        if coarsest is not None:
            _dilate(self.features, coarsest)
        if weights is not None:
            load_weights(self, weights, architecture=name)

    def freeze(self, count: int) -> None:
        """Keep the layers up to level `count` as they are, the statistics of their batch norms too."""
        self.frozen = self.levels[count - 1].index + 1
        self.features[: self.frozen].requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As usual, but for frozen layers."""
        super().train(mode)
        self.features[: self.frozen].eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """`image` (N, 3, H, W), normalised -> five tensors (N, channels, H / stride, W / stride)."""
        taps = {level.index for level in self.levels}
        found = []
        for index, layer in enumerate(self.features):
            image = layer(image)
            if index in taps:
                found.append(image)
        return found


def check_size(levels: tuple[Level, ...], size: tuple[int, int]) -> None:
    """Raise CheckpointError unless `size` (height, width) is a positive multiple of the coarsest stride."""
    stride = levels[-1].stride
    if any(side < stride or side % stride for side in size):
        raise CheckpointError(
            f"input size {size[0]} x {size[1]}: both sides must be positive multiples of {stride}, "
            "the backbone's coarsest stride."
        )


def build_classifier(name: ClassifierName, *, weights: str | Path | None = None) -> nn.Module:
    """A whole ImageNet classifier: (N, 3, H, W) normalised -> (N, 1000) logits.

    Args:
        name: a torchvision architecture of METHODS' table.
        weights: see `load_weights`.
    """
    model: nn.Module = getattr(torchvision.models, name)(weights=None)
    if weights is not None:
        load_weights(model, weights, architecture=name)
    return model


def load_weights(model: nn.Module, source: str | Path, *, architecture: str, skip: tuple[str, ...] = ()) -> None:
    """Fill `model` from a file with torchvision's parameter names.

    Args:
        model: takes the tensors that it has; a backbone ignores the file's classifier.
        source: a `.safetensors` file, one that training wrote (its backbone is taken) or one with torchvision's
            names; or the word "torchvision" to download its ImageNet weights.
        architecture: torchvision's name for the model.
        skip: tensors whose name begins so keep their values, such as those of a new last layer.

    Raises:
        CheckpointError: the file is unreadable, lacks tensors, has others' shapes, or cannot be fetched.
    """
    state = _download(architecture) if str(source) == "torchvision" else _read(Path(source))
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(skip)}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - state.keys() - counters)
    if missing:
        raise CheckpointError(
            f"weights {source}: {len(missing)} tensors of {architecture} are missing ({', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}); the file must use torchvision's parameter names."
        )
    unfit = [key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape]
    if unfit:
        key = min(unfit)
        raise CheckpointError(
            f"weights {source}: {key} has shape {tuple(state[key].shape)}, "
            f"{architecture} needs {tuple(wanted[key].shape)}."
        )
    model.load_state_dict({key: state[key] for key in wanted.keys() & state.keys()}, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise CheckpointError(f"weights {path}: expected a .safetensors file or the word 'torchvision'.")
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"weights {path}: cannot be read as safetensors ({error}).") from error
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    return own or state


def _download(architecture: str) -> dict[str, Tensor]:
    try:
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise CheckpointError(
            f"weights of {architecture}: torchvision's download failed ({error}); "
            "give a .safetensors file with torchvision's parameter names instead."
        ) from error
    return state


def _dilate(features: nn.Sequential, coarsest: int) -> None:
    """Keep the stride at `coarsest`: later poolings become nothing, later convolutions reach as far as before."""
    stride, dilation = 1, 1
    for index, block in enumerate(features):
        for layer in block.modules():
            if isinstance(layer, nn.MaxPool2d | nn.Conv2d) and layer.stride in (2, (2, 2)):
                if stride < coarsest:
                    stride *= 2
                    continue
                if isinstance(layer, nn.MaxPool2d):
                    features[index] = nn.Identity()
                else:
                    layer.stride = (1, 1)
                    _spread(layer, dilation)
                dilation *= 2
            elif isinstance(layer, nn.Conv2d):
                _spread(layer, dilation)


def _spread(layer: nn.Conv2d, dilation: int) -> None:
    """Dilate a 3x3 convolution, with the padding that keeps its size; a 1x1 stays as it is."""
    if layer.kernel_size == (3, 3):
        layer.dilation = layer.padding = (dilation, dilation)


def _reset(module: nn.Module) -> None:
    """torchvision's own initial values: He normal for convolutions, ones and zeros for batch norm, .01 for linear."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
        module.reset_running_stats()
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def steps_up(level: Level) -> int:
    """How many doublings bring `level` to the input's size."""
    return level.stride.bit_length() - 1
