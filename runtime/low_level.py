"""What follows the descent of `cgd`: from the change of the picture to its map (Clamped descent, sec. 3.1-3.3).

The raw map is what the descent took away; superpixels smooth it, and a low-level map of their LAB colours refines it.
Superpixels need scikit-image, which is loaded where it is used.
"""

import math
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import BackendUnavailableError, SalienceError

StepScale = Literal["relative", "plain", "channel"]
ThetaUnit = Literal["mean", "otsu", "otsu_max"]
PresetName = Literal["default", "paper", "released"]
Floats: TypeAlias = "NDArray[np.float64]"
Labels: TypeAlias = "NDArray[np.intp]"

# Spans below this are rounding: LAB units, square pixels and saliency that mean anything are far larger.
_NOTHING = 1e-6
# k of exp(-k norm(V)); Saliency filters (Perazzi et al.), where the spread comes from, takes 6.
_SPREAD_WEIGHT = 3.0


def _check(
    name: str,
    value: float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise SalienceError unless the value is finite and in bounds."""
    if math.isfinite(value) and least <= value <= most and above < value < below:
        return
    signs = {"at least": least, "above": above, "at most": most, "below": below}
    wanted = " and ".join(f"{sign} {bound:g}" for sign, bound in signs.items() if math.isfinite(bound))
    raise SalienceError(f"{name} {value}: expected a number {wanted}.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SalienceError(f"{name} {value!r} is not known: choose one of {', '.join(choices)}.")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How the picture descends: X(t+1) = X(t) - step_t * max(dF/dX, 0), eq. 1 and 2.

    Attributes:
        iterations: T, how many steps, at least 1.
        gamma: weight of the clamped classes in F, at least 0; 0 clamps nothing.
        step: epsilon: grey levels, in "relative" and "channel" steps what the largest gradient moves its pixel by.
        scale: what the rectified gradient g is brought to: "relative" g / max(g) of the picture, "channel" min-max to
            [0, 1] in each colour channel, "plain" as it is.
        decay: what the step is multiplied by after each iteration, above 0 and at most 1.
        clip: keep X in [0, 255].
    """

    iterations: int = 10
    gamma: float = 0.01
    step: float = 2.0
    scale: StepScale = "relative"
    decay: float = 1.0
    clip: bool = False

    def __post_init__(self) -> None:
        _check("iterations", self.iterations, least=1)
        _check("gamma", self.gamma, least=0)
        _check("step", self.step, above=0)
        _check_choice("scale", self.scale, get_args(StepScale))
        _check("decay", self.decay, above=0, most=1)


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How the map is made of the difference X0 - XT.

    Attributes:
        per_channel: stretch the difference to [0, 1] in each colour channel before the channels are averaged.
        theta: floor of the raw map, see `theta_unit`; at least 0, where 0 floors nothing.
        theta_unit: what theta is a multiple of: the map's "mean", its "otsu" threshold, or "otsu_max", that threshold
            times the map's maximum. The first two follow the map, so theta means the same for a step of any length.
            The third is the released code's and needs `per_channel`, which brings the map to [0, 1].
        cut: weak values become 0 and the others stay; otherwise all values are lowered by the limit. Holds for theta
            and prune.
        smooth: take the mean over each superpixel (eq. 4).
        refine: multiply the low-level map in (eq. 5, 6).
        superpixels: about how many SLIC makes.
        compactness: of SLIC: how far their shape prevails over colour.
        sigma: how far apart in LAB colours are similar.
        alpha: the low-level map is brought to [alpha, 1 + alpha] before it is multiplied in; 0 to 1.
        gain: what the map, divided by its maximum, is multiplied by, with 1 as the limit; large for refined maps, whose
            maximum stands out.
        prune: weak values of the map at the end, a fraction of its maximum; 0 prunes nothing.
    """

    per_channel: bool = False
    theta: float = 2.0
    theta_unit: ThetaUnit = "mean"
    cut: bool = False
    smooth: bool = True
    refine: bool = True
    superpixels: int = 100
    compactness: float = 20.0
    sigma: float = 5.0
    alpha: float = 0.1
    gain: float = 8.0
    prune: float = 0.3

    def __post_init__(self) -> None:
        _check("theta", self.theta, least=0)
        _check_choice("theta_unit", self.theta_unit, get_args(ThetaUnit))
        _check("superpixels", self.superpixels, least=1)
        for name in ("compactness", "sigma", "gain"):
            _check(name, getattr(self, name), above=0)
        _check("alpha", self.alpha, least=0, most=1)
        _check("prune", self.prune, least=0, below=1)


@dataclass(frozen=True)
class Preset:
    """The parameters of the loop and of what follows it."""

    descent: Descent = field(default_factory=Descent)
    refinement: Refinement = field(default_factory=Refinement)


# With `default` and `paper` F falls over the steps, as the paper says, for SqueezeNet, MobileNetV2 and
# EfficientNet-Lite0; with a gamma of 1 it rises. The numbers of `default` were chosen among those on ECSSD's validation
# part. The paper names T and SLIC's numbers only. `released` has the numbers of the authors' code; its F rises.
PRESETS: dict[PresetName, Preset] = {
    "default": Preset(),
    "paper": Preset(
        Descent(iterations=10, gamma=0.01, step=2.0),
        Refinement(theta=1.0, superpixels=100, compactness=10.0, sigma=20.0, alpha=0.5, gain=1.0, prune=0.1),
    ),
    "released": Preset(
        Descent(iterations=35, gamma=200.0, step=20.0, scale="channel", decay=0.999),
        Refinement(
            per_channel=True,
            theta=1.3,
            theta_unit="otsu_max",
            cut=True,
            superpixels=100,
            compactness=10.0,
            sigma=20.0,
            alpha=0.2,
            gain=1.7,
            prune=0.2,
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class Superpixels:
    """The n superpixels of a picture.

    Attributes:
        labels: (h, w), the superpixel of every pixel, 0 to n - 1; each has a pixel.
        colours: (n, 3) float64, mean LAB colour.
        positions: (n, 2) float64, mean row and column in pixels.
    """

    labels: Labels
    colours: Floats
    positions: Floats

    def means(self, values: NDArray[Any]) -> Floats:
        """The mean of `values` (h, w) over each superpixel, (n,); eq. 4."""
        return _means(values, self.labels)

    def paint(self, values: Floats) -> NDArray[np.float32]:
        """(h, w) float32: every pixel has the value of its superpixel; `values` is (n,)."""
        return values.astype(np.float32)[self.labels]


def saliency_map(
    start: NDArray[np.float32], end: NDArray[np.float32], *, refinement: Refinement
) -> NDArray[np.float32]:
    """Algorithm 1 after its loop.

    All of it happens at the size of the network's input: on photographs superpixels of a larger picture are no better.

    Args:
        start: (3, h, w) float32 RGB, 0 to 255: X0, the network's input.
        end: (3, h, w) float32: XT.
        refinement: the parameters.

    Returns:
        (h, w) float32 in [0, 1], its largest value 1; 0 everywhere if nothing changed, or all of it alike.
    """
    image = np.rint(np.clip(start, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    return refine_map(raw_map(start, end, refinement=refinement), image, refinement=refinement)


def raw_map(start: NDArray[np.float32], end: NDArray[np.float32], *, refinement: Refinement) -> NDArray[np.float32]:
    """What the descent took away, averaged over RGB, floored at theta, of unit L2 norm (sec. 3.1).

    Args:
        start: X0, (3, h, w) float32.
        end: XT, (3, h, w) float32.
        refinement: its per_channel, theta, theta_unit and cut are used.

    Returns:
        (h, w) float32, at least 0; 0 everywhere if nothing is left.
    """
    difference = np.asarray(start, dtype=np.float64) - end
    if refinement.per_channel:
        difference = np.stack([unit(channel) for channel in difference])
    found = np.maximum(difference.mean(axis=0), 0)
    if refinement.theta:
        found = _floor(found, refinement.theta * _theta_scale(found, refinement.theta_unit), cut=refinement.cut)
    norm = np.linalg.norm(found)
    return np.asarray(found / norm if norm > 0 else found, dtype=np.float32)


def refine_map(raw: NDArray[np.float32], image: NDArray[np.uint8], *, refinement: Refinement) -> NDArray[np.float32]:
    """The raw map (h, w) smoothed, refined, pruned and divided by its maximum, by a picture (h, w, 3) uint8 RGB."""
    found = raw
    if refinement.smooth or refinement.refine:
        regions = segment(image, refinement.superpixels, compactness=refinement.compactness)
        if refinement.smooth:
            found = regions.paint(regions.means(found))
        if refinement.refine:
            low = low_level(regions, sigma=refinement.sigma)
            found = found * regions.paint(weights(low, alpha=refinement.alpha))
    return _finish(found, refinement)


def segment(image: NDArray[np.uint8], count: int, *, compactness: float) -> Superpixels:
    """About `count` SLIC superpixels of a picture (h, w, 3) uint8 RGB."""
    found = _skimage("segmentation").slic(image, n_segments=count, compactness=compactness, start_label=0)
    # SLIC may leave labels out.
    labels = np.unique(found, return_inverse=True)[1].reshape(found.shape)
    lab = _skimage("color").rgb2lab(image)
    places = np.indices(labels.shape)
    return Superpixels(
        labels,
        colours=np.stack([_means(lab[..., channel], labels) for channel in range(3)], axis=1),
        positions=np.stack([_means(axis, labels) for axis in places], axis=1),
    )


def low_level(regions: Superpixels, *, sigma: float) -> Floats:
    """S_L of each superpixel, (n,) in [0, 1]: norm(contrast') * exp(-3 norm(V)).

    High where a colour is far from the others and in one place. 0 everywhere if no superpixel stands out.
    """
    distances = _distances(regions.colours)
    similarity = similarities(distances, sigma=sigma)
    contrast = similarity @ distances.sum(axis=1)
    scattered: Floats = np.exp(-_SPREAD_WEIGHT * unit(spread(regions.positions, similarity)))
    return unit(contrast) * scattered


def similarities(distances: Floats, *, sigma: float) -> Floats:
    """w_ij = exp(-d_ij^2 / 2 sigma^2) with rows summing to 1, (n, n), of distances (n, n) in LAB."""
    found = np.exp(-(distances**2) / (2 * sigma**2))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def spread(positions: Floats, similarity: Floats) -> Floats:
    """V_i = sum_j w_ij |p_j - mu_i|^2 around mu_i = sum_j w_ij p_j: how far a colour is scattered, (n,)."""
    centres = similarity @ positions
    squares = ((positions[None] - centres[:, None]) ** 2).sum(axis=2)
    return np.asarray((similarity * squares).sum(axis=1))


def weights(low: Floats, *, alpha: float) -> Floats:
    """S_L stretched to [alpha, 1 + alpha], what the smoothed map is multiplied by (eq. 6).

    Where S_L is constant it says nothing, and the weights are 1 + alpha.
    """
    found = unit(low)
    return found + alpha if found.any() else np.full_like(found, 1 + alpha)


def unit(values: NDArray[Any]) -> Floats:
    """Values stretched to [0, 1]; 0 everywhere if they differ by rounding only."""
    low, span = values.min(), np.ptp(values)
    return np.asarray((values - low) / span if span > _NOTHING else np.zeros(values.shape), dtype=np.float64)


def _distances(colours: Floats) -> Floats:
    """d_ij = |C_i - C_j|, (n, n)."""
    return np.asarray(np.linalg.norm(colours[:, None] - colours[None], axis=2))


def _means(values: NDArray[Any], labels: Labels) -> Floats:
    flat = labels.ravel()
    return np.asarray(np.bincount(flat, weights=values.ravel()) / np.bincount(flat))


def _theta_scale(values: Floats, theta_unit: ThetaUnit) -> float:
    if theta_unit == "mean":
        return float(values.mean())
    threshold = float(_skimage("filters").threshold_otsu(values))
    return threshold * float(values.max()) if theta_unit == "otsu_max" else threshold


def _floor(values: NDArray[Any], limit: float, *, cut: bool) -> NDArray[Any]:
    """Weak values gone: set to 0, or all lowered by the limit."""
    return np.where(values < limit, 0, values) if cut else np.maximum(values - limit, 0)


def _finish(values: NDArray[np.float32], refinement: Refinement) -> NDArray[np.float32]:
    """Divided by the maximum, amplified, pruned, and divided again."""
    found = np.minimum(_by_maximum(values) * refinement.gain, 1)
    return _by_maximum(_floor(found, refinement.prune, cut=refinement.cut)).astype(np.float32)


def _by_maximum(values: NDArray[Any]) -> NDArray[Any]:
    largest = values.max()
    return np.asarray(values / largest) if largest > 0 else values


def _skimage(module: str) -> Any:
    try:
        return import_module(f"skimage.{module}")
    except ImportError as error:
        raise BackendUnavailableError(
            "superpixels: scikit-image is not installed; run: pip install 'salience[superpixels]'"
        ) from error
