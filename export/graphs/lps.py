"""`lps` is two graphs: `embed` runs once a picture, `refine` turns a prior into the next one.

What the iterations need of a picture is small, by exact algebra (symbols as in the paper):

- With a linear head an embedding is W x, and only distances of embeddings count. With W = U S V^T they are
  those of S V^T x, as many numbers as x has (320) instead of 512; the leading ones of them, by `rank`, are close.
- Distances do not change when all pixels are moved alike, so embeddings are centred: then the weighted sums of
  the two regions cancel, and one of them gives both anchors. Centred numbers are also small, so little is lost in
  |z - a|^2 = |z|^2 - 2 z.a + |a|^2, whose first term is computed once a picture.
- With separate region layers (nonlinear head, or `region` "fc") the sums are those of what these layers take or give,
  and an offset brings the anchors to the embeddings' origin.
- d2 - d1 = (d2^2 - d1^2) / (d1 + d2), whose numerator 2 z.(a1 - a2) + |a2|^2 - |a1|^2 holds no |z|^2 at all.

So an iteration reads the embeddings twice, once for the sum and once for the product, and computes little else.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import ModelProto
from pydantic import Field
from torch import Tensor, nn

from salience.runtime.detector import Detector
from salience.runtime.errors import ExportError
from salience.runtime.manifest import Approximation, TensorSpec
from salience.runtime.methods.lps import PromoterDetector
from salience.training.backbone import check_size
from salience.training.networks.lps import Promoter, shuffle

from ..graph import Graph, MethodExport
from ..operators import anchor_distance_node, centred_norm_node, subpixel_concat_node
from ..processing import prior_graph

Join = Callable[[Sequence[Tensor], Sequence[int]], Tensor]

# Of the prior that stands in for a detector's, in checks that need one, and how often it is refined.
CHECKED_ITERATIONS = 3


class Embed(nn.Module):
    """Network input (N, 3, H, W) -> what the iterations need, P = H * W pixels.

    - `embedding` (N, r, P): centred; `norm` (N, 1, P): the squares' sum of each pixel's full embedding;
    - with separate region layers also `offset` (N, 1, D): the anchor, in the centred space, of a region that is the
      whole image; and, with a nonlinear head, `pooled` (N, 5 C or D, P), centred: the features with `region` "fc",
      the region embeddings of the pixels with "conv".

    With a linear head and `region` "fc" the anchors need the features themselves, so these are the `embedding`.
    `fused` puts nodes of the domain `salience` in the place of what has a kernel; these compute nothing in PyTorch.
    """

    def __init__(self, network: Promoter, rank: int | None, *, fused: bool = False) -> None:
        super().__init__()
        self.network = network
        self.join: Join = subpixel_concat_node if fused else shuffle
        self.fused = fused
        self.linear = network.settings.head == "linear"
        self.region = network.settings.region
        if self.linear:
            self.basis = nn.Parameter(_basis(network, rank)[:, :, None, None], requires_grad=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """See above."""
        features = self.join(self.network.maps(image), self.network.strides)
        if self.linear and self.region == "conv":
            return self.centre(F.conv2d(features, self.basis).flatten(2))
        if self.linear:
            centred, mean = _centred(features)
            reduced, _ = _centred(F.conv2d(features, self.basis))
            return centred, _square_sum(reduced), self._offset(mean, self.network.linear(mean.to(features.dtype)))
        embedding, middle = _centred(self.network.project(features))
        centred, mean = _centred(self.network.region(features) if self.region == "conv" else features)
        return embedding, _square_sum(embedding), self._offset(mean, middle), centred

    def centre(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Centred embeddings (N, C, P) and their squares' sum; there is a kernel for fp32 alone."""
        if self.fused and rows.dtype == torch.float32:
            return centred_norm_node(rows)
        centred, _ = _centred(rows)
        return centred, _square_sum(centred)

    def _offset(self, mean: Tensor, middle: Tensor) -> Tensor:
        """The anchor of the whole image less the mean embedding `middle` (N, 1, D).

        `mean` is that of the features (N, 1, 5 C), or of the region embeddings (N, 1, D) with `region` "conv".
        """
        if self.region == "conv":
            return mean - middle.float()
        region = cast("nn.Linear", self.network.region)
        return F.linear(mean, region.weight.float(), region.bias.float()) - middle.float()


class Refine(nn.Module):
    """One iteration (eq. 3, 5): the outputs of `Embed`, `prior` (N, 1, H, W) and `iteration` t (1,) -> the next two.

    A prior that leaves one of the regions empty stays as it is. Sums are in fp32 whatever is stored. `fused` puts
    nodes of the domain `salience` in the place of what has a kernel; these compute nothing in PyTorch.
    """

    def __init__(self, network: Promoter, *, fused: bool = False) -> None:
        super().__init__()
        settings = network.settings
        linear = settings.head == "linear"
        self.separate = settings.region == "fc" or not linear
        self.fused = fused and not self.separate
        self.hard = settings.weighting == "hard"
        self.sharpness = settings.sharpness
        self.votes = settings.prior_votes
        self.turn: nn.Parameter | None = None
        self.anchor: nn.Parameter | None = None
        if settings.region == "fc":
            weight = cast("nn.Linear", network.region).weight
            self.anchor = nn.Parameter(weight.detach().clone(), requires_grad=False)
            if linear:
                self.turn = nn.Parameter(_weight(network).clone(), requires_grad=False)

    def forward(self, embedding: Tensor, norm: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        """`rest` is `offset` and `pooled` where `Embed` gives them, then `prior` and `iteration`."""
        *extra, prior, iteration = rest
        embedding = embedding.float()
        before = prior.flatten(2)
        salient = (before > 0.5).float() if self.hard else before
        t = iteration.to(torch.float32)
        if self.votes:
            t = t + self.votes
        if self.fused:
            following = anchor_distance_node(embedding, norm, salient, before, t, self.sharpness)
            return following.view_as(prior), iteration + 1
        pooled = extra[1].float() if len(extra) > 1 else embedding
        weight, other = (share.sum(dim=2, keepdim=True) for share in (salient, 1 - salient))
        usable = (weight > 0) & (other > 0)
        # Features are centred, so the sum over the background is the negative of the sum over the object; that over
        # the smaller of the two is the exacter one.
        mostly = weight > other
        total = (pooled @ torch.where(mostly, 1 - salient, salient).transpose(1, 2)).transpose(1, 2)
        total = torch.where(mostly, -total, total)
        means = torch.cat([total / weight.clamp(min=1e-6), -total / other.clamp(min=1e-6)], dim=1)
        rows, square = self._anchors(means, extra)
        first, second = rows.split(1, dim=1)
        product = first @ embedding
        if not self.separate:
            # The anchors lie on one line through the middle, so one product gives the other.
            difference = product * (1 + weight / other.clamp(min=1e-6))
        else:
            difference = (first - second) @ embedding
        difference = 2 * difference + square[:, 1:] - square[:, :1]
        squared = norm - 2 * product + square[:, :1]
        distances = squared.clamp(min=0).sqrt() + (squared + difference).clamp(min=0).sqrt()
        found = (self.sharpness * difference / distances.clamp(min=1e-12)).sigmoid()
        found = torch.where(usable, found, before).view_as(prior)
        return (t * prior + found) / (t + 1), iteration + 1

    def _anchors(self, means: Tensor, extra: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Regions' means (N, 2, C) -> what pixels are multiplied with (N, 2, r), and anchors' squares (N, 2, 1)."""
        if not self.separate:
            return means, means.square().sum(dim=2, keepdim=True)
        anchors = (means if self.anchor is None else F.linear(means, self.anchor.float())) + extra[0]
        square = anchors.square().sum(dim=2, keepdim=True)
        return (anchors if self.turn is None else anchors @ self.turn.float()), square


class PromoterExport(MethodExport):
    """`rank` keeps that many singular directions of the linear head; None keeps all, which is exact.

    `weighting`, `sharpness` and `prior_votes` replace the network's own, see `PromoterSettings`; they need no training.
    """

    rank: int | None = Field(default=None, ge=1)
    weighting: Literal["soft", "hard"] | None = None
    sharpness: float | None = Field(default=None, gt=0)
    prior_votes: float | None = Field(default=None, ge=0)

    def graphs(self, network: Promoter, size: tuple[int, int]) -> list[Graph]:
        """`embed`, with the pixel-shuffle and the concatenation a node of the `salience` domain, and `refine`."""
        check_size(network.backbone.levels, size)
        self._check(network)
        network = self._chosen(network)
        embed, plain = Embed(network, self.rank, fused=True), Embed(network, self.rank)
        state = _state_specs(network, plain, size)
        prior = TensorSpec(name="prior", dtype="float32", shape=("batch", 1, *size))
        iteration = TensorSpec(name="iteration", dtype="int64", shape=(1,))
        # With a rank the network's definition is another function; `approximations` says how far.
        expected = Definition(network, size) if self.rank is None else Chain(plain, Refine(network), size)
        return [
            Graph(
                name="embed",
                module=embed,
                reference=plain,
                inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 3, *size)),),
                outputs=state,
                half=("embedding", "pooled"),
            ),
            Graph(
                name="refine",
                module=Refine(network, fused=True),
                reference=expected,
                inputs=(*state, prior, iteration),
                outputs=(_renamed(prior), _renamed(iteration)),
                feeds=lambda images: (*plain(images), check_prior(len(images), size), torch.tensor([1])),
                half=("embedding", "pooled"),
                minds_types=True,
                int8_outputs=(),  # its time is reading the embedding, not multiplying
            ),
        ]

    def host_graphs(self, size: tuple[int, int]) -> dict[str, ModelProto]:
        """`prior` brings a prior of any size to the network's."""
        return {"prior": prior_graph(size)}

    def predict(self, network: Promoter, tensor: Tensor, image: NDArray[np.uint8]) -> Tensor:
        """The contrast prior of `image` after a few iterations."""
        prior = torch.from_numpy(contrast_prior(image))[None, None]
        small = F.interpolate(prior, size=tensor.shape[2:], mode="bilinear", antialias=True)
        return self._chosen(network).promote(tensor, small.clamp(0, 1), CHECKED_ITERATIONS)

    def serve(self, detector: Detector, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same from the bundle."""
        if not isinstance(detector, PromoterDetector):
            raise ExportError(f"{detector!r}: cannot promote a prior.")
        return detector.promote(image, contrast_prior(image), CHECKED_ITERATIONS, empty="keep").values

    def approximations(self, network: Promoter, tensors: Iterable[Tensor]) -> list[Approximation]:
        """The change of the maps that `rank` makes."""
        if self.rank is None:
            return []
        network, inputs = self._chosen(network), list(tensors)
        size = (inputs[0].shape[2], inputs[0].shape[3])
        reduced = Chain(Embed(network, self.rank), Refine(network), size)
        exact = Definition(network, size)
        with torch.no_grad():
            change = torch.cat([(reduced(x)[0] - exact(x)[0]).abs() for x in inputs])
        strengths = torch.linalg.svdvals(_weight(network).double()).square()
        kept = float(strengths[: self.rank].sum() / strengths.sum())
        return [
            Approximation(
                option=f"rank {self.rank}",
                kept=f"{self.rank} of {len(strengths)} directions, {kept:.2%} of the head's energy",
                inputs=f"{len(inputs)} scenes",
                max_abs=float(change.max()),
                mean_abs=float(change.mean()),
            )
        ]

    def _chosen(self, network: Promoter) -> Promoter:
        """The network with the options in place of its settings; its weights are shared."""
        given = self.model_dump(include={"weighting", "sharpness", "prior_votes"}, exclude_none=True)
        chosen = copy.copy(network)
        chosen.settings = network.settings.model_copy(update=given)
        return chosen

    def _check(self, network: Promoter) -> None:
        settings = network.settings
        if settings.stage != "embedding":
            raise ExportError(
                "lps checkpoint: holds the first training stage, which has no embedding; train the second stage "
                "with this file as --weights and export that."
            )
        if self.rank is None:
            return
        if settings.head != "linear" or settings.region != "conv":
            raise ExportError(f"rank {self.rank}: needs head linear and region conv, got {settings.head}, "
                              f"{settings.region}; leave rank out.")  # fmt: skip
        limit = min(settings.embedding, settings.width * len(network.strides))
        if self.rank > limit:
            raise ExportError(f"rank {self.rank}: the head has {limit} directions; choose at most that many.")


class Chain(nn.Module):
    """`Embed` and `Refine` from a picture and a prior drawn for it: network input -> the next prior and iteration."""

    def __init__(self, embed: nn.Module, refine: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.embed = embed
        self.refine = refine
        self.size = size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `refine` gives at iteration 1."""
        found: tuple[Tensor, Tensor] = self.refine(
            *self.embed(images), check_prior(len(images), self.size), torch.tensor([1])
        )
        return found


class Definition(nn.Module):
    """As `Chain`, by the network's own definition."""

    def __init__(self, network: Promoter, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Chain`."""
        prior = check_prior(len(images), self.size)
        votes = self.network.settings.prior_votes
        first = self.network.promote(images, prior, 1)
        # `first` holds the prior with `votes` votes, at iteration 1 it has one more.
        return (prior + (votes + 1) * first) / (votes + 2), torch.tensor([2])


def check_prior(count: int, size: tuple[int, int]) -> Tensor:
    """The same smooth blob (1, *size) in [0, 1] for each of `count` pictures: some object, some background."""
    y, x = (torch.linspace(-1, 1, side) for side in size)
    blob = torch.exp(-3 * ((y[:, None] - 0.2) ** 2 + (x[None, :] + 0.1) ** 2))
    return blob.expand(count, 1, *size).contiguous()


def contrast_prior(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far each pixel's colour is from the mean colour of the frame, (H, W) float32 in [0, 1]."""
    frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).mean(axis=0)
    distance = np.linalg.norm(image - frame, axis=2).astype(np.float32)
    scaled: NDArray[np.float32] = distance / max(float(distance.max()), 1.0)
    return scaled


def _state_specs(network: Promoter, embed: Embed, size: tuple[int, int]) -> tuple[TensorSpec, ...]:
    """The outputs of `Embed`."""
    settings = network.settings
    pixels, joined = size[0] * size[1], settings.width * len(network.strides)
    reduced = settings.embedding
    if embed.linear:
        reduced = joined if settings.region == "fc" else embed.basis.shape[0]
    shapes: dict[str, tuple[int, ...]] = {"embedding": (reduced, pixels), "norm": (1, pixels)}
    if settings.region == "fc" or not embed.linear:
        shapes["offset"] = (1, settings.embedding)
    if not embed.linear:
        shapes["pooled"] = (joined if settings.region == "fc" else settings.embedding, pixels)
    return tuple(TensorSpec(name=name, dtype="float32", shape=("batch", *shape)) for name, shape in shapes.items())


def _renamed(spec: TensorSpec) -> TensorSpec:
    return spec.model_copy(update={"name": f"next_{spec.name}"})


def _basis(network: Promoter, rank: int | None) -> Tensor:
    """S V^T of the linear head, its leading rows: (r, 5 C)."""
    _, strengths, directions = torch.linalg.svd(_weight(network).double(), full_matrices=False)
    basis: Tensor = (strengths[:, None] * directions)[:rank].float()
    return basis


def _weight(network: Promoter) -> Tensor:
    """The linear head as a matrix (D, 5 C)."""
    weight: Tensor = cast("nn.Conv2d", network.project).weight.detach().flatten(1)
    return weight


def _centred(maps: Tensor) -> tuple[Tensor, Tensor]:
    """`maps` (N, C, H, W) or (N, C, P) less their mean, as (N, C, P), and the mean (N, 1, C) in fp32."""
    rows = maps.flatten(2)
    mean = rows.float().mean(dim=2, keepdim=True)
    return rows - mean.to(rows.dtype), mean.transpose(1, 2)


def _square_sum(rows: Tensor) -> Tensor:
    """(N, C, P) -> (N, 1, P) in fp32."""
    return rows.float().square().sum(dim=1, keepdim=True)
