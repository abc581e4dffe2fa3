"""Backbones and classifiers from timm (`timm:NAME`), with the interface of `backbone`."""

import math
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from salience.runtime.errors import BackendUnavailableError, CheckpointError

from .backbone import Backbone, Colour, Level

_LEVELS = 5


def create_model(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """Create the network `name` of timm's, a classifier of 1000 classes unless `options` say otherwise.

    Raises:
        CheckpointError: timm has no such network, or it does not take the options.
        BackendUnavailableError: timm is not installed.
    """
    timm = _timm()
    from timm.layers.conv2d_same import Conv2dSame

    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:5]
        raise CheckpointError(
            f"backbone timm:{name}: timm {timm.__version__} has no such network"
            f"{'; similar names are ' + ', '.join(near) if near else ''}."
        )
    try:
        model = cast("nn.Module", timm.create_model(name, pretrained=pretrained, **options))
    except (TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        raise CheckpointError(f"backbone timm:{name}: cannot be built with {shown} ({error}).") from error
    for module in model.modules():
        if isinstance(module, Conv2dSame):
            module.__class__ = SamePaddedConv2d  # type: ignore[assignment]
    return model


class SamePaddedConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, which depends on the input's size: more at the end than before.

    It replaces timm's, whose `forward` leaves nothing to override between padding and convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W) -> (N, K, ceil(H / stride), ceil(W / stride))."""
        rows, columns = (self._padding(side, axis) for axis, side in enumerate(x.shape[2:]))
        found: Tensor = self._conv_forward(functional.pad(x, (*columns, *rows)), self.weight, self.bias)
        return found

    def _padding(self, side: int, axis: int) -> tuple[int, int]:
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        total = max((math.ceil(side / stride) - 1) * stride + reach - side, 0)
        return total // 2, total - total // 2


def default_normalisation(name: str) -> tuple[Colour, Colour]:
    """Return mean and deviation, of RGB in [0, 1], from the configuration of timm's pretrained weights."""
    timm = _timm()
    if not timm.is_model(name):
        create_model(name)  # raises
    config = timm.get_pretrained_cfg(name)
    mean, std = config.mean, config.std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


class TimmBackbone(Backbone):
    """A convolutional network of timm's that has five levels of strides 2 to 32.

    The parameters of `model` bear timm's names. Without `head` it is what `features_only=True` gives; with it the
    whole classifier, whose last level is the tensor before its average pooling.
    """

    def __init__(self, name: str, *, coarsest: int | None = None, head: bool = False) -> None:
        super().__init__()
        self.mean, self.std = default_normalisation(name)
        dilated: dict[str, Any] = {} if coarsest is None or coarsest >= 32 else {"output_stride": coarsest}
        kept: dict[str, Any] = {} if head else {"features_only": True, "out_indices": tuple(range(_LEVELS))}
        model: Any = create_model(name, **kept, **dilated)
        described = [*model.feature_info][:_LEVELS] if head else model.feature_info.get_dicts()
        self.model = model
        self.levels = tuple(
            Level(index, int(info["reduction"]), int(info["num_chs"])) for index, info in enumerate(described)
        )
        self._ends = tuple(str(info["module"]) for info in described)
        self._head = head
        strides = [level.stride for level in self.levels]
        limit = coarsest or 32
        if strides != [min(stride, limit) for stride in (2, 4, 8, 16, 32)]:
            raise CheckpointError(
                f"backbone timm:{name}: its levels have strides {strides}, expected five of 2 to 32 "
                "(a convolutional classifier such as timm:tf_efficientnet_lite0 or timm:resnet18)."
            )
        if head:
            self.levels = (*self.levels[:-1], Level(_LEVELS - 1, strides[-1], int(model.num_features)))
            self._check_head(name)

    @property
    def source(self) -> nn.Module:
        """See `Backbone.source`."""
        return cast("nn.Module", self.model)

    @property
    def classifier(self) -> nn.Sequential:  # type: ignore[override]
        """The last linear layer as a sequence of one; it takes the average of the last level."""
        if not self._head:
            raise AttributeError("this backbone was built without its classifier")
        return nn.Sequential(self.model.get_classifier())

    def layers(self) -> Iterator[tuple[int, nn.Module]]:
        """See `Backbone.layers`; what follows the module of a level belongs to the next."""
        named = [
            (name, module)
            for name, module in self.model.named_modules()
            if not list(module.children()) or list(module.parameters(recurse=False))
        ]
        ends = [
            max(index for index, (name, _) in enumerate(named) if f"{name}.".startswith((f"{end}.", f"{end}_")))
            for end in self._ends[:-1]
        ]
        for index, (_, module) in enumerate(named):
            yield sum(end < index for end in ends), module

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Backbone.forward`."""
        if not self._head:
            return list(self.model(image))
        top, found = self.model.forward_intermediates(image, indices=list(range(_LEVELS)))
        return [*found[:-1], top]

    def _check_head(self, name: str) -> None:
        """The closed form of gicd needs average pooling and one linear layer."""
        pool, last = getattr(self.model, "global_pool", None), self.model.get_classifier()
        averaged = getattr(pool, "pool_type", "") == "avg"
        if not (averaged and isinstance(last, nn.Linear) and last.in_features == self.levels[-1].channels):
            raise CheckpointError(
                f"backbone timm:{name}: its classifier is not one linear layer behind average pooling, as is needed "
                "here; choose another, such as timm:tf_efficientnet_lite0 or timm:resnet18."
            )


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise BackendUnavailableError(
            "backbone timm:...: the package timm is not installed; run: pip install 'salience[export]'"
        ) from error
    return timm
