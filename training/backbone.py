"""One backbone interface for every network: an image becomes five feature levels F1..F5."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self, cast

import torch
import torchvision
from pydantic import AfterValidator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from salience.runtime.errors import CheckpointError

# ImageNet's channel means and deviations, of RGB in [0, 1], as torchvision's weights expect them.
Colour = tuple[float, float, float]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM_PREFIX = "timm:"


@dataclass(frozen=True)
class Level:
    """A feature level: `index` of the module that yields it, its stride and channels."""

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


TORCHVISION_CLASSIFIERS = (*LEVELS, "squeezenet1_0")


def _check_backbone(name: str) -> str:
    if name in LEVELS or name.startswith(TIMM_PREFIX):
        return name
    raise ValueError(f"got {name!r}, expected {', '.join(LEVELS)} or timm:NAME")


def _check_classifier(name: str) -> str:
    if name in TORCHVISION_CLASSIFIERS or name.startswith(TIMM_PREFIX):
        return name
    raise ValueError(f"got {name!r}, expected {', '.join(TORCHVISION_CLASSIFIERS)} or timm:NAME")


# Names in the settings of networks: of torchvision's architectures, or "timm:" and a name of timm's.
BackboneName = Annotated[str, AfterValidator(_check_backbone)]
ClassifierName = Annotated[str, AfterValidator(_check_classifier)]


class Backbone(nn.Module, ABC):
    """The convolutional part of a classifier, cut after its last level; `build_backbone` makes one.

    Attributes:
        levels: F1..F5, finest first.
        frozen: how many modules `freeze` has frozen.
        mean, std: the normalisation of RGB in [0, 1] that its pretrained weights expect.
        classifier: the classifier's last layers, a sequence; only where the backbone was built with its head.
    """

    levels: tuple[Level, ...]
    classifier: nn.Sequential
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD

    def __init__(self) -> None:
        super().__init__()
        self.frozen = 0

    @property
    @abstractmethod
    def source(self) -> nn.Module:
        """The module whose parameters bear the names of the library that it comes from."""

    @abstractmethod
    def layers(self) -> Iterator[tuple[int, nn.Module]]:
        """Yield the modules in the order in which they run, each with the number (from 0) of its level."""

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """`image` (N, 3, H, W), normalised -> five tensors (N, channels, H / stride, W / stride)."""

    def freeze(self, count: int) -> None:
        """Keep the parameters and batch statistics of the layers up to level `count`."""
        self.frozen = count
        for layer in self._frozen_layers():
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of all layers but the frozen ones."""
        super().train(mode)
        for layer in self._frozen_layers():
            layer.eval()
        return self

    def _frozen_layers(self) -> list[nn.Module]:
        return [layer for level, layer in self.layers() if level < self.frozen] if self.frozen else []


class TorchvisionBackbone(Backbone):
    """A torchvision classifier; parameter names are torchvision's (`features.0.weight`, ...)."""

    def __init__(self, name: str, *, coarsest: int | None = None, head: bool = False) -> None:
        super().__init__()
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

    @property
    def source(self) -> nn.Module:
        """See `Backbone.source`."""
        return self

    def layers(self) -> Iterator[tuple[int, nn.Module]]:
        """See `Backbone.layers`."""
        ends = [level.index for level in self.levels]
        for index, layer in enumerate(self.features):
            yield sum(end < index for end in ends), layer

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Backbone.forward`."""
        taps = {level.index for level in self.levels}
        found = []
        for index, layer in enumerate(self.features):
            image = layer(image)
            if index in taps:
                found.append(image)
        return found


def build_backbone(
    name: str, *, coarsest: int | None = None, head: bool = False, weights: str | Path | None = None
) -> Backbone:
    """Build the backbone `name`, with random values unless `weights` are given.

    Args:
        name: an entry of `LEVELS`, or `timm:NAME`.
        coarsest: no level gets a larger stride; later layers are dilated instead. None keeps the strides.
        head: keep the classifier's last layers as `classifier`; the last level is then what they take.
        weights: see `load_weights`.

    Raises:
        CheckpointError: the name is unknown, the network has no five levels, or the weights do not fit.
        BackendUnavailableError: timm is needed and not installed.
    """
    backbone: Backbone
    if name.startswith(TIMM_PREFIX):
        from .timm_backbone import TimmBackbone

        backbone = TimmBackbone(name.removeprefix(TIMM_PREFIX), coarsest=coarsest, head=head)
    else:
        backbone = TorchvisionBackbone(name, coarsest=coarsest, head=head)
    if weights is not None:
        load_weights(backbone, weights, architecture=name)
    return backbone


def check_size(levels: tuple[Level, ...], size: tuple[int, int]) -> None:
    """Raise CheckpointError unless `size` (height, width) is a positive multiple of the coarsest stride."""
    stride = levels[-1].stride
    if any(side < stride or side % stride for side in size):
        raise CheckpointError(
            f"input size {size[0]} x {size[1]}: both sides must be positive multiples of {stride}, "
            "the backbone's coarsest stride."
        )


def normalisation(name: str) -> tuple[Colour, Colour]:
    """Return mean and deviation, of RGB in [0, 1], that the pretrained weights of `name` expect."""
    if name.startswith(TIMM_PREFIX):
        from .timm_backbone import default_normalisation

        return default_normalisation(name.removeprefix(TIMM_PREFIX))
    return IMAGENET_MEAN, IMAGENET_STD


def build_classifier(name: str, *, weights: str | Path | None = None) -> nn.Module:
    """Build a whole ImageNet classifier: (N, 3, H, W) normalised -> (N, 1000) logits.

    Args:
        name: an entry of `TORCHVISION_CLASSIFIERS`, or `timm:NAME`.
        weights: see `load_weights`.
    """
    if name.startswith(TIMM_PREFIX):
        from .timm_backbone import create_model

        model = create_model(name.removeprefix(TIMM_PREFIX))
    else:
        model = cast("nn.Module", getattr(torchvision.models, name)(weights=None))
    if weights is not None:
        load_weights(model, weights, architecture=name)
    return model


def load_weights(model: nn.Module, source: str | Path, *, architecture: str, skip: tuple[str, ...] = ()) -> None:
    """Fill `model` from a file with the parameter names of the library that it comes from.

    Args:
        model: takes the tensors that it has; a backbone ignores the file's classifier.
        source: a `.safetensors` file with torchvision's or timm's names, or one that training wrote (its backbone is
            taken); or the word "torchvision" or "timm" to download that library's ImageNet weights.
        architecture: name of the model, as in `build_backbone` or `build_classifier`.
        skip: tensors whose name begins so keep their values, such as those of a new last layer.

    Raises:
        CheckpointError: the file is unreadable, lacks tensors, has others' shapes, or cannot be fetched.
    """
    target = model.source if isinstance(model, Backbone) else model
    state = _download(architecture, str(source)) if str(source) in ("torchvision", "timm") else _read(Path(source))
    wanted = {name: value for name, value in target.state_dict().items() if not name.startswith(skip)}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - state.keys() - counters)
    if missing:
        library = "timm" if architecture.startswith(TIMM_PREFIX) else "torchvision"
        raise CheckpointError(
            f"weights {source}: {len(missing)} tensors of {architecture} are missing ({', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}); the file must use {library}'s parameter names."
        )
    unfit = [key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape]
    if unfit:
        key = min(unfit)
        raise CheckpointError(
            f"weights {source}: {key} has shape {tuple(state[key].shape)}, "
            f"{architecture} needs {tuple(wanted[key].shape)}."
        )
    target.load_state_dict({key: state[key] for key in wanted.keys() & state.keys()}, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise CheckpointError(f"weights {path}: expected a .safetensors file or the word 'torchvision' or 'timm'.")
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"weights {path}: cannot be read as safetensors ({error}).") from error
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    # A backbone of timm's is a submodule of ours.
    return {key.removeprefix("model."): value for key, value in own.items()} or state


def _download(architecture: str, library: str) -> dict[str, Tensor]:
    if architecture.startswith(TIMM_PREFIX) != (library == "timm"):
        raise CheckpointError(f"weights {library}: {architecture} is not an architecture of that library.")
    try:
        if library == "timm":
            from .timm_backbone import create_model

            return dict(create_model(architecture.removeprefix(TIMM_PREFIX), pretrained=True).state_dict())
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"weights of {architecture}: the download failed ({error}); "
            f"give a .safetensors file with {library}'s parameter names instead."
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
