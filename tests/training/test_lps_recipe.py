"""How `lps` is trained: spoilt masks, sampled pixels, the paper's optimiser."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salience.training.checkpoint import build_network
from salience.training.losses import soft_iou_loss, structure_loss
from salience.training.networks.lps import Promoter
from salience.training.recipes.lps import PromoterRecipe, rough_prior

SIZE = (64, 96)


def lps(**settings: Any) -> Promoter:
    torch.manual_seed(0)
    network = build_network("lps", settings).eval()
    assert isinstance(network, Promoter)
    return network


def blob() -> Tensor:
    mask = torch.zeros(1, 96, 128)
    mask[:, 20:70, 30:90] = 1
    return mask


def test_a_twentieth_of_the_labels_is_flipped() -> None:
    torch.manual_seed(0)
    mask = torch.zeros(1, 256, 256)
    mask[:, 100:, :200] = 1
    flipped = PromoterRecipe().labels(mask)["prior"] != mask
    for region in (mask == 0, mask == 1):
        # Five deviations of the share of n independent draws.
        assert float(flipped[region].float().mean()) == pytest.approx(0.05, abs=5 * (0.05 * 0.95 / 30_000) ** 0.5)
    assert set(PromoterRecipe().labels(mask)["prior"].unique().tolist()) == {0.0, 1.0}
    other = PromoterRecipe().labels(mask)["prior"] != mask
    assert not torch.equal(flipped, other)


def test_without_flips_the_prior_is_the_mask() -> None:
    assert torch.equal(PromoterRecipe(flip=0).labels(blob())["prior"], blob())


def test_a_rough_prior_follows_the_mask_on_average() -> None:
    torch.manual_seed(0)
    mask = blob()
    draws = [rough_prior(mask) for _ in range(40)]
    assert all(draw.shape == mask.shape and 0 <= float(draw.min()) < float(draw.max()) <= 1 for draw in draws)
    likeness = [float(torch.corrcoef(torch.stack([draw.flatten(), mask.flatten()]))[0, 1]) for draw in draws]
    assert float(np.mean(likeness)) > 0.5
    assert min(likeness) < 0.9  # none too good
    assert float(torch.corrcoef(torch.stack([torch.stack(draws).mean(0).flatten(), mask.flatten()]))[0, 1]) > 0.9
    assert all(not torch.allclose(draws[0], draw, atol=0.01) for draw in draws[1:])


def test_part_of_the_masks_is_spoilt_roughly() -> None:
    torch.manual_seed(0)
    recipe = PromoterRecipe(rough=0.3)
    rough = sum(len(recipe.labels(blob())["prior"].unique()) > 2 for _ in range(200))
    assert 0.3 * 200 - 5 * 6.5 < rough < 0.3 * 200 + 5 * 6.5  # five deviations of 200 draws


def batch_of(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    mask = F.interpolate((torch.rand(count, 1, 4, 6, generator=generator) > 0.5).float(), size=SIZE)
    image = torch.randn(count, 3, *SIZE, generator=generator) + 2 * mask
    return {"image": image, "mask": mask, "prior": torch.rand(count, 1, *SIZE, generator=generator)}


@pytest.mark.parametrize("training", [False, True])
def test_the_loss_of_all_pixels_is_cross_entropy_of_the_map(training: bool) -> None:
    network, batch = lps(backbone="mobilenet_v2", width=4, embedding=8).train(training), batch_of(2)
    with torch.no_grad():
        # Validation looks at all pixels whatever training samples.
        loss, saliency = PromoterRecipe(samples=0 if training else 100).loss(network, batch)
        expected = network(batch["image"], batch["prior"]).logits.sigmoid().view_as(batch["mask"])
    assert saliency.shape == batch["mask"].shape
    assert torch.allclose(saliency, expected)
    assert float(loss) == pytest.approx(float(F.binary_cross_entropy(expected, batch["mask"])), rel=1e-5)


def test_the_loss_of_sampled_pixels_compares_each_with_its_own_label() -> None:
    network, batch = lps(backbone="mobilenet_v2", width=4, embedding=8).train(), batch_of(2)
    torch.manual_seed(5)
    loss, saliency = PromoterRecipe(samples=100).loss(network, batch)
    torch.manual_seed(5)
    with torch.no_grad():
        logits, pixels = network(batch["image"], batch["prior"], samples=100)
    truth = torch.stack([batch["mask"][k].flatten()[pixels[k]] for k in range(2)])
    assert saliency.shape == (2, 100)
    assert torch.allclose(saliency, logits.sigmoid())
    expected = F.binary_cross_entropy(logits.sigmoid(), truth)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_the_papers_optimiser_is_the_default() -> None:
    recipe = PromoterRecipe()
    defaults = recipe.defaults()
    assert (recipe.flip, recipe.rough) == (0.05, 0)
    assert (defaults.optimiser, defaults.rate, defaults.backbone_rate, defaults.epochs) == ("adam", 1e-3, 0.1, 36)
    assert (defaults.schedule, defaults.decay, defaults.batch) == ("constant", 0.0, 3)


def test_the_first_stage_trains_the_backbone_under_a_small_head() -> None:
    network = lps(backbone="mobilenet_v2", width=8, stage="backbone").train()
    assert {name for name, _ in network.named_children()} == {"backbone", "cascade"}
    batch, recipe = batch_of(2), PromoterRecipe(samples=100)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss, saliency = recipe.loss(network, batch)
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert saliency.shape == batch["mask"].shape
    assert losses[-1] < 0.9 * losses[0]


def test_the_losses_beyond_the_paper_are_added() -> None:
    network, batch = lps(backbone="mobilenet_v2", width=4, embedding=8).train(), batch_of(2)
    with torch.no_grad():
        network(batch["image"], batch["prior"])
        plain, saliency = PromoterRecipe(samples=0).loss(network, batch)
        more, _ = PromoterRecipe(samples=0, iou=0.5, structure=0.25).loss(network, batch)
    expected = plain + 0.5 * soft_iou_loss(saliency, batch["mask"]) + 0.25 * structure_loss(saliency, batch["mask"])
    assert float(more) == pytest.approx(float(expected), rel=1e-4)


def test_validation_sees_the_votes_of_the_prior() -> None:
    network, batch = lps(backbone="mobilenet_v2", width=4, embedding=8, prior_votes=1.0), batch_of(2)
    with torch.no_grad():
        _, found = PromoterRecipe().loss(network, batch)
        assert torch.allclose(found, network.promote(batch["image"], batch["prior"], 1), atol=1e-6)


def test_the_score_is_what_promotion_gains_in_each_folder() -> None:
    """On the first folder the map is repaired, on the second it is lost."""
    mask = blob()[None].float()
    weak = 0.4 * mask + 0.3
    flat = torch.full_like(mask, 0.5)
    scorer = PromoterRecipe().scorer()
    scorer.add(torch.cat([mask, flat]), {
        "prior": torch.cat([weak, weak]), "mask": torch.cat([mask, mask]), "source": torch.tensor([0, 1]),
    })  # fmt: skip
    scores = scorer.scores()
    assert next(iter(scores)) == "gain"
    assert scores["f_max_2"] < -0.1 < 0 <= scores["f_max_1"] < 1e-6
    assert scores["mae_2"] > 0
    changes = [scores[f"f_max_{k}"] + scores[f"f_weighted_{k}"] - scores[f"mae_{k}"] for k in (1, 2)]
    assert scores["gain"] == pytest.approx(sum(changes) / 2)
    better = PromoterRecipe().scorer()
    better.add(mask, {"prior": flat, "mask": mask, "source": torch.tensor([0])})
    assert better.scores()["gain"] > 0.5
    assert better.scores()["f_max"] == pytest.approx(1, abs=1e-6)
