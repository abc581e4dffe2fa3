"""The same methods without this project's exporter and runtime: plain PyTorch, compiled, and naively exported."""

import re
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.forms import Call, Form, Workload
from salience.runtime.low_level import Descent
from salience.training.checkpoint import load_checkpoint
from salience.training.networks.cgd import Classifier
from salience.training.networks.gicd import GradientInduced, average_pool, decode, resize
from salience.training.networks.lps import Promoter
from tests.released_gicd import released_maps
from tests.released_lps import ReleasedForm

_TAKES_GRADIENTS = ("cgd", "gicd")


class PlainMap(nn.Module):
    """Any network as one function: its inputs -> the map (N, 1, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """The map."""
        saliency: Tensor = self.network(*inputs).saliency
        return saliency


class PlainDescent(nn.Module):
    """`cgd` as one writes it with autograd: pictures (N, 3, H, W) in grey levels -> X(T)."""

    def __init__(self, network: nn.Module, descent: Descent) -> None:
        super().__init__()
        self.network = network
        self.descent = descent

    def forward(self, image: Tensor) -> Tensor:
        """The last picture; weights need no gradients."""
        reference, others = image.new_zeros(0), image.new_zeros(0)
        for step in range(self.descent.iterations):
            image = image.detach().requires_grad_()
            logits = self.network(image).logits
            if step == 0:
                reference = logits.detach()
                others = torch.ones_like(reference).scatter(1, reference.argmax(dim=1, keepdim=True), 0.0)
            clamped = (others * (logits - reference) ** 2).sum()
            cost = ((1 - others) * logits).sum() + self.descent.gamma / 2 * clamped
            (gradient,) = torch.autograd.grad(cost, image)
            gradient = gradient.relu()
            image = image - self.descent.step * gradient / gradient.amax(dim=(1, 2, 3), keepdim=True)
        return image.detach()


class PlainGroup(nn.Module):
    """`gicd` on a whole group with autograd: pictures (N, 3, H, W) -> maps (N, 1, H, W).

    With the released weights of channels it is the released form, which takes VGG16 alone; else the paper's steps.
    """

    def __init__(self, network: GradientInduced) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The finest maps, at the pictures' size."""
        if self.network.settings.induction == "released":
            return released_maps(self.network, images)[0]
        return paper_maps(self.network, images)


def paper_maps(network: GradientInduced, images: Tensor) -> Tensor:
    """The paper's arithmetic, the gradient with respect to F5 by autograd: (N, 3, H, W) -> (N, 1, H, W)."""
    with torch.no_grad():
        found = network.embed(images)
        consensus = found.logits.sum(dim=0).softmax(dim=0)
    with torch.enable_grad():
        top = found.features[-1].detach().requires_grad_()
        pooled = average_pool(top).flatten(1) if network.settings.backbone == "vgg16" else top.mean(dim=(2, 3))
        similarity = (network.backbone.classifier(pooled) * consensus).sum()
        (gradient,) = torch.autograd.grad(similarity, top)
    with torch.no_grad():
        weights = gradient.relu().mean(dim=(2, 3), keepdim=True)
        return resize(decode(network.reduce, network.blocks, found.features, weights)[0], images.shape[2:])


class TorchForms:
    """Opens the forms of PyTorch; all share one network."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def open(self, form: Form) -> Call:
        """The form as a call on the workload's inputs; compiled at its first call."""
        return self._torch_call(self.module(form), form)

    def module(self, form: Form) -> nn.Module:
        """What the form runs, from the workload's inputs to maps."""
        return self._plain(self.network) if form.kind == "eager" else self._compiled()

    @cached_property
    def network(self) -> Any:
        """The workload's network; its weights need no gradients."""
        with NoRandomValues():
            return load_checkpoint(self.workload.checkpoint)[1].requires_grad_(False)

    def export(self, batch: int) -> None:
        """Write what `torch.onnx.export` makes of the plain network for inputs of this batch, at its defaults."""
        network: nn.Module = PlainMap(self.network)
        if self.workload.method in ("lps", "cgd"):
            network = self._plain(self.network)
        inputs = tuple(map(torch.from_numpy, self.workload.inputs(batch)))
        program = torch.onnx.export(network.eval(), inputs, dynamo=True, verbose=False)
        cast("torch.onnx.ONNXProgram", program).save(self.workload.exported(batch))

    def _plain(self, network: Any) -> nn.Module:
        match self.workload.method:
            case "lps":
                return ReleasedForm(cast("Promoter", network), iterations=self.workload.iterations)
            case "cgd":
                return PlainDescent(cast("Classifier", network), Descent(iterations=self.workload.iterations))
            case "gicd":
                return PlainGroup(network)
            case _:
                return PlainMap(network)

    def _compiled(self) -> nn.Module:
        """With the default settings, a program of its own for every shape; the loop of `cgd` stays in Python."""
        if self.workload.method == "cgd":
            return self._plain(torch.compile(self.network, dynamic=False))
        compiled: Any = torch.compile(self._plain(self.network), dynamic=False)
        return cast("nn.Module", compiled)

    def _torch_call(self, module: nn.Module, form: Form) -> Call:
        inputs = [torch.from_numpy(values) for values in self.workload.inputs(form.batch)]
        takes_gradients = self.workload.method in _TAKES_GRADIENTS

        def call() -> Tensor:
            torch.set_num_threads(form.threads)
            with torch.inference_mode(mode=not takes_gradients):
                found: Tensor = module(*inputs)
            return found

        return call


class NoRandomValues(TorchFunctionMode):
    """While it is entered, networks are made without random values, which a checkpoint overwrites anyway."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Skip what fills a tensor at random; all that `torch.nn.init` offers ends there."""
        if getattr(function, "__name__", None) in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def reason(error: BaseException) -> str:
    """The first sentence of the error at the bottom of `error`."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    first = re.split(r"(?<=[a-z)])\. |\n", text)[0].rstrip(".")
    return f"{type(error).__name__}: {first[:160]}" if first else type(error).__name__
