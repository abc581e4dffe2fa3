"""Scores, picture by picture, of what the ablations compare: short runs' networks, and forms of `lps` and `cgd`."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ablation_verdict import Outcome
from benchmarks.method_maps import Forms, Grey, accumulate, groups_of, pairs_of, promoted_maps
from benchmarks.object_quality import form_maps
from salience.runtime import ClampedDescentDetector, PromoterDetector, load
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.images import decode, decode_mask
from salience.training.checkpoint import load_checkpoint
from salience.training.preprocessing import Preprocessing

SINGLE_SETS = ("ecssd", "horses", "coseg")
_TIMES = (0, 1, 3)


def score_checkpoint(path: Path, method: str, data: Path, *, threads: int) -> Outcome:
    """Of a network of `multis` or `arn` on the test parts of all sets, or of `gicd` on the groups of coseg.

    Maps are brought from the input's size to the mask's bilinearly.
    """
    torch.set_num_threads(threads)
    header, network = load_checkpoint(path)
    sets = ("coseg",) if method == "gicd" else SINGLE_SETS
    pairs = [pair for name in sets for pair in pairs_to_score(data, name)]
    batches: Iterable[Sequence[Pair]] = groups_of(pairs).values() if method == "gicd" else [[pair] for pair in pairs]
    maps = (grey for batch in batches for grey in network_maps(network, header.preprocessing, batch))
    return outcomes(pairs, ({"": grey} for grey in maps))[""]


@torch.no_grad()
def network_maps(network: Any, preprocessing: Preprocessing, pairs: Sequence[Pair]) -> Iterator[Grey]:
    """The maps of pictures that pass through the network together, each at its mask's size."""
    image = torch.stack([network_input(pair, preprocessing) for pair in pairs])
    saliency = network(image.contiguous(memory_format=torch.channels_last)).saliency
    for pair, values in zip(pairs, saliency, strict=True):
        shape = decode_mask(pair.mask).shape
        resized = F.interpolate(values[None], size=shape, mode="bilinear")[0, 0]
        yield (resized.clamp(0, 1) * 255).round().byte().numpy()


def network_input(pair: Pair, preprocessing: Preprocessing) -> Tensor:
    """(3, H, W) float32, normalised."""
    image = torch.from_numpy(decode(pair.source).transpose(2, 0, 1).copy())[None].float()
    resized = F.interpolate(image, size=preprocessing.size, mode="bilinear", antialias=True)[0]
    return preprocessing.normalise(resized.clamp(0, 255).round().byte())


def score_promotion(bundle: str, data: Path, name: str, priors: str) -> dict[str, Outcome]:
    """Of stored priors after T = 0, 1 and 3 iterations of `lps`."""
    promoter = load(bundle)
    if not isinstance(promoter, PromoterDetector):
        raise SystemExit(f"{bundle}: expected a bundle of lps.")
    pairs = pairs_to_score(data, name, sources=priors)
    return outcomes(pairs, promoted_maps(promoter, pairs, iterations=_TIMES))


def score_descent(bundle: str, data: Path, *, count: int) -> dict[str, Outcome]:
    """Of the steps and forms of `cgd` on the first `count` pictures of ECSSD's test part."""
    detector = load(bundle)
    if not isinstance(detector, ClampedDescentDetector):
        raise SystemExit(f"{bundle}: expected a bundle of cgd.")
    pairs = pairs_to_score(data, "ecssd")[:count]
    return outcomes(pairs, (form_maps(detector, detector.prepare(pair.source)) for pair in pairs))


def pairs_to_score(data: Path, name: str, *, sources: str = "images") -> tuple[Pair, ...]:
    """The test part of a set."""
    return pairs_of(data / name, sources=sources, splits=data / "splits.json", part="test")


def outcomes(pairs: Sequence[Pair], maps: Iterable[Forms]) -> dict[str, Outcome]:
    """Each form's scores of every picture, as of one seed."""
    parts = {name: found.image_curves() for name, found in accumulate(pairs, maps, full=False).items()}
    return {
        name: Outcome(curves[None].astype(np.float32), errors[None].astype(np.float32))
        for name, (curves, errors) in parts.items()
    }
