"""What a run needs before it starts: samples of both parts, the teachers' maps, and the network."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.runtime.commands import parse_pairs
from salience.runtime.errors import DataError, SalienceError
from salience.runtime.splits import listed_sets
from salience.runtime.tables import entry

from .backbone import Backbone, check_size, load_weights
from .checkpoint import build_network, initial_network
from .data.folders import check_sizes, split_by_file, split_by_seed
from .data.sampling import source_of
from .distillation import read_unlabelled, taught
from .networks import NETWORKS
from .options import DataOptions, NetworkOptions, TeacherOptions
from .preprocessing import CONVENTIONS, Preprocessing
from .recipe import Recipe

SIZE = (224, 224)


@dataclass
class Samples:
    """The samples of both parts, and the weights of the sources (empty: every sample is drawn once an epoch)."""

    training: list[Any]
    validation: list[Any]
    weights: dict[str, float]


def read_samples(recipe: Recipe, options: DataOptions, *, seed: int, note: Callable[[str], None]) -> Samples:
    """Return the samples of all folders and of the synthetic scenes, with priors where these are asked for.

    Args:
        recipe: reads and merges the samples.
        options: which.
        seed: of the split and the scenes.
        note: is told which sets a split file does not list.

    Raises:
        DataError: there are none, a folder is in no known layout, or masks and images differ in size.
    """
    roots, weights = sources(options.data or [], "--data")
    training, validation = _split(recipe, roots, options, seed=seed, note=note)
    check_sizes([*training, *validation])
    training += recipe.synthetic(options.synthetic, seed=seed)
    if options.priors:
        joined = [*recipe.with_priors([*training, *validation], options.priors)]
        training, validation = joined[: len(training)], joined[len(training) :]
    return Samples(training, validation, weights)


def add_teachers(
    samples: Samples,
    recipe: Recipe,
    options: TeacherOptions,
    *,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Add images without masks, and blend the targets of all training samples with the teachers' maps.

    Args:
        samples: are changed.
        recipe: of the method that learns.
        options: which teachers and images.
        folder: keeps the maps.
        progress: called with the number of maps done and in all.

    Raises:
        SalienceError: the method learns no maps of single images, or there are images without masks and no teacher.
    """
    if options.unlabelled and not options.teacher:
        raise SalienceError("--unlabelled: images without masks need a --teacher.")
    if not options.teacher:
        return
    if not recipe.learns_maps:
        raise SalienceError("--teacher: this method does not learn the map of a single image, as multis does.")
    roots, weights = sources(options.unlabelled or [], "--unlabelled")
    free = [sample for root in roots for sample in read_unlabelled(root)]
    samples.weights |= weights
    samples.training = taught(
        [*samples.training, *free], options.teacher, share=options.teacher_share, folder=folder, progress=progress
    )


def make_network(method: str, settings: dict[str, Any], options: NetworkOptions) -> tuple[Any, Preprocessing]:
    """Return the network to train, its backbone or all of it filled from a file, and its preprocessing.

    A network that normalises its input itself (`input_scale`) takes the convention of its weights as settings.

    Args:
        method: an entry of `NETWORKS`.
        settings: that follow from the samples.
        options: of the command line; they come before `settings`.

    Raises:
        CheckpointError: a setting, a size or a file does not fit.
        SalienceError: options contradict each other.
    """
    network_type = entry(NETWORKS, method, what="method")
    convention = CONVENTIONS.get(options.convention or "", {})
    normalises_itself = hasattr(network_type, "input_scale")
    chosen = ({"backbone": options.backbone} if options.backbone else {}) | settings
    chosen |= (convention if normalises_itself else {}) | parse_pairs(options.network_option, "--network")
    network, header = _filled(method, chosen, options)
    size = options.size or (header.preprocessing.size if header else SIZE)
    if isinstance(network.backbone, Backbone):
        check_size(network.backbone.levels, size)
    if options.freeze_levels:
        _freeze(network, options.freeze_levels)
    if normalises_itself:
        return network, Preprocessing(size=size, **network_type.input_scale)
    if header and not convention:
        return network, header.preprocessing.model_copy(update={"size": size})
    scale = {"mean": network.backbone.mean, "std": network.backbone.std} | convention
    return network, Preprocessing(size=size, **scale)


def sources(given: Sequence[str], flag: str) -> tuple[list[Path], dict[str, float]]:
    """Return the folders of `DIR[=WEIGHT]`, and the weights by the folders' names.

    Raises:
        DataError: a weight is not a positive number.
    """
    roots, weights = [], {}
    for text in given:
        folder, equals, number = text.rpartition("=")
        try:
            weight = float(number) if equals else None
        except ValueError:  # the sign belongs to the folder's name
            weight = None
        root = Path(text if weight is None else folder)
        roots.append(root)
        if weight is not None:
            if not 0 < weight < math.inf:
                raise DataError(f"{flag} {text}: the weight is {number}, expected a positive number.")
            weights[Path(os.path.normpath(root.absolute())).name] = weight
    return roots, weights


def _split(
    recipe: Recipe, roots: Sequence[Path], options: DataOptions, *, seed: int, note: Callable[[str], None]
) -> tuple[list[Any], list[Any]]:
    """Training and validation samples of all folders; without folders, scenes that validate."""
    found = [sample for root in roots for sample in recipe.read(root)]
    fraction, splits = options.val_fraction, options.splits
    if not found and not options.synthetic:
        raise DataError("training data: none given; pass --data DIR or --synthetic COUNT.")
    if not found:
        return [], [*recipe.synthetic(max(1, round(fraction * options.synthetic)), seed=seed + 1)]
    if splits is None:
        return split_by_seed(recipe.merge(found), fraction=fraction, seed=seed)
    free = sorted({source_of(sample) for sample in found} - listed_sets(splits))
    if free:
        note(f"{splits}: does not list {', '.join(free)}; all images of these sets train.")
    training, validation = (recipe.merge(split_by_file(found, splits, part)) for part in ("train", "val"))
    return [*training], [*validation]


def _filled(method: str, settings: dict[str, Any], options: NetworkOptions) -> tuple[Any, Any]:
    """The network with its first weights, and the header of the checkpoint that it starts from, or None."""
    if options.weights is not None and options.initial is not None:
        raise SalienceError("--weights, --initial: both fill the backbone; give one of them.")
    if options.initial is not None:
        header, started = initial_network(options.initial, method=method, changes=settings)
        return started, header
    network: Any = build_network(method, settings)
    if options.weights is not None:
        fresh = tuple(name.removeprefix("backbone.") for name in getattr(network, "fresh", ()))
        load_weights(network.backbone, options.weights, architecture=network.settings.backbone, skip=fresh)
    return network, None


def _freeze(network: Any, count: int) -> None:
    if not isinstance(network.backbone, Backbone):
        raise SalienceError(f"--freeze-levels {count}: this method's network has no feature levels.")
    network.backbone.freeze(count)
