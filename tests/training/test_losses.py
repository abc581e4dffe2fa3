import torch
import torch.nn.functional as F

from salience.training.losses import structure_loss


def half_mask() -> torch.Tensor:
    mask = torch.zeros(2, 1, 40, 40)
    mask[:, :, :, :20] = 1
    return mask


def test_the_structure_loss_is_what_its_definition_says() -> None:
    torch.manual_seed(0)
    mask, saliency = half_mask(), torch.rand(2, 1, 40, 40)
    weight = 1 + 5 * (F.avg_pool2d(mask, 31, stride=1, padding=15) - mask).abs()
    entropy = F.binary_cross_entropy(saliency, mask, reduction="none")
    weighted = (weight * entropy).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
    both = (saliency * mask * weight).sum(dim=(2, 3))
    either = ((saliency + mask) * weight).sum(dim=(2, 3)) - both
    expected = (weighted + 1 - (both + 1) / (either + 1)).mean()
    assert torch.allclose(structure_loss(saliency, mask), expected, atol=1e-5)


def test_an_error_at_an_edge_costs_more_than_one_far_from_it() -> None:
    mask = half_mask()
    near, far = mask.clone() * 0.9 + 0.05, mask.clone() * 0.9 + 0.05
    near[:, :, 10:30, 20] = 0.9
    far[:, :, 10:30, 36] = 0.9
    assert torch.allclose(F.binary_cross_entropy(near, mask), F.binary_cross_entropy(far, mask))
    assert structure_loss(near, mask) > structure_loss(far, mask) * 1.02
