"""One epoch of training and of validation, on each of the processes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset

from salience.runtime.errors import DataError

from .data.loading import batches
from .data.sampling import DrawOrder, ShareSampler
from .optim import backbone_norms
from .recipe import Recipe
from .run_state import FitSettings, Run


class Trained(NamedTuple):
    """Mean loss of an epoch, images per second, and draws of each source, all of all processes."""

    loss: float
    images_per_second: float
    draws: dict[str, int]


@dataclass(frozen=True)
class Trainer:
    """The parts of a run that is under way; `network` and `optimiser` are Fabric's wrappers of the run's.

    `order` draws by source where an item is a sample; None: every item of the data is drawn once an epoch.
    """

    network: Any
    optimiser: Any
    run: Run
    recipe: Recipe
    settings: FitSettings
    fabric: Fabric
    order: DrawOrder | None = None

    def train(self, data: Any, progress: Callable[[str], None]) -> Trained:
        """One pass over `data`; `progress` is called with a note after each forward pass."""
        self._train_mode()
        settings, fabric = self.settings, self.fabric
        # Dropout draws from the global generator: seeding it by epoch makes the epoch repeatable.
        torch.manual_seed(settings.seed * 100_003 + len(self.run.history) + fabric.global_rank * 10_000_019)
        total, passes, images = 0.0, 0, 0
        indices = self._indices(data)
        start = time.monotonic()
        for index, batch in enumerate(batches(self._loader(data, indices))):
            last = (index + 1) % settings.accumulate == 0
            with fabric.no_backward_sync(self.network, enabled=not last):
                loss, _ = self.recipe.loss(self.network, batch)
                fabric.backward(loss / settings.accumulate)
            if last:
                self._step()
            total, passes, images = total + float(loss.detach()), passes + 1, images + _images(batch)
            progress(f"loss {total / passes:.4f}")
        self.optimiser.zero_grad()
        sums = fabric.all_reduce(torch.tensor([total / max(passes, 1), float(images)]), reduce_op="sum")
        loss_sum, image_sum = cast("Tensor", sums).tolist()
        draws = self.order.drawn(indices) if self.order else {}
        return Trained(loss_sum / fabric.world_size, image_sum / (time.monotonic() - start), draws)

    @torch.no_grad()
    def validate(self, data: Any) -> dict[str, float]:
        """Return the scores at input size. The processes share the images; all of them get the scores of all images."""
        fabric = self.fabric
        network = self.run.result.eval()
        if fabric.world_size > 1:
            for buffer in network.buffers():  # batch statistics are each process's own
                torch.distributed.broadcast(buffer, src=0)
        scorer = self.recipe.scorer()
        share = Subset(data, range(fabric.global_rank, len(data), fabric.world_size))
        loader: Any = fabric.setup_dataloaders(
            DataLoader(
                share, batch_size=self.settings.pass_batch, num_workers=self.settings.workers,
                collate_fn=self.recipe.collate,
            ),
            use_distributed_sampler=False,
        )  # fmt: skip
        for batch in batches(loader):
            _, prediction = self.recipe.loss(network, batch)
            scorer.add(prediction, batch)
        if fabric.world_size > 1:
            shares: list[Any] = [None] * fabric.world_size
            torch.distributed.all_gather_object(shares, scorer.records)
            scorer.records = [record for records in shares for record in records]
        return scorer.scores()

    def _train_mode(self) -> None:
        """Training mode, but for what is frozen, batch statistics too."""
        self.network.train()
        optimiser = self.settings.optimiser
        if optimiser.backbone_rate == 0:
            cast("nn.Module", self.run.network.backbone).eval()
        if optimiser.freeze_norm:
            for module in backbone_norms(self.run.network):
                module.eval()

    def _step(self) -> None:
        run, settings = self.run, self.settings.optimiser
        if settings.clip:
            self.fabric.clip_gradients(self.network, self.optimiser, max_norm=settings.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        run.schedule.step_batch()
        if run.averaged:
            run.averaged.multi_avg_fn = _average(run.averaged, settings.average)
            run.averaged.update_parameters(run.network)

    def _indices(self, data: Any) -> list[int]:
        """The items of this epoch, of all processes, in whole batches."""
        order = self.order or DrawOrder([""] * len(data), seed=self.settings.seed)
        passes = passes_per_epoch(len(data), self.settings, self.fabric.world_size)
        return order.indices(data.epoch)[: passes * self.settings.pass_batch * self.fabric.world_size]

    def _loader(self, data: Any, indices: list[int]) -> Any:
        """This process's share, such that batch k of all processes is batch k of one with batches as large as all."""
        sampler = ShareSampler(indices, rank=self.fabric.global_rank, processes=self.fabric.world_size)
        loader = DataLoader(
            data, batch_size=self.settings.pass_batch, sampler=sampler, num_workers=self.settings.workers,
            drop_last=True, collate_fn=self.recipe.collate,
        )  # fmt: skip
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def passes_per_epoch(images: int, settings: FitSettings, processes: int) -> int:
    """Forward passes of each process in an epoch; at least one optimiser step must come of them."""
    passes = images // (settings.pass_batch * processes)
    if settings.limit_steps is not None:
        passes = min(passes, settings.limit_steps * settings.accumulate)
    if passes < 1:
        raise DataError(
            f"training: {images} images do not fill one batch of {settings.pass_batch} on each of "
            f"{processes} processes; lower --batch or add images."
        )
    if passes < settings.accumulate:
        raise DataError(
            f"training: an epoch has {passes} passes, fewer than the {settings.accumulate} that one optimiser step "
            "gathers; lower --accumulate or add images."
        )
    return passes


def _average(averaged: AveragedModel, decay: float) -> Any:
    """The moving average's next step; its decay rises to `decay`, so that the first weights are soon forgotten."""
    steps = int(averaged.n_averaged)
    return get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))


def _images(batch: dict[str, Tensor]) -> int:
    """How many pictures a batch has; every tensor of it has a row for each."""
    return len(next(iter(batch.values())))
