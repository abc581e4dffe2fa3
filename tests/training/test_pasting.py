import torch
import torch.nn.functional as F
from torch import Tensor

from salience.training.data.dataset import SaliencyDataset
from salience.training.data.pasting import free_strip, paste
from salience.training.data.scenes import scenes
from salience.training.preprocessing import Preprocessing

GREEN, RED = torch.tensor([0, 200, 0])[:, None, None], torch.tensor([200, 0, 0])[:, None, None]


def flat(colour: Tensor) -> Tensor:
    return colour.to(torch.uint8).expand(3, 64, 96).contiguous()


def square() -> Tensor:
    mask = torch.zeros(1, 64, 96)
    mask[:, 20:44, 30:60] = 1
    return mask


def test_pasted_pixels_are_the_donors_where_the_mask_says_so() -> None:
    torch.manual_seed(0)
    for _ in range(10):
        joined, mask = paste(flat(GREEN), torch.zeros(1, 64, 96), flat(RED), square())
        red = joined[0].float() / 200
        assert 0.2 < float(mask.sum() / square().sum()) < 1.5
        inside, outside = (1 - F.max_pool2d(1 - mask, 7, 1, 3), 1 - F.max_pool2d(mask, 7, 1, 3))
        assert set(red[inside[0] > 0].tolist()) == {1.0}  # what the feather does not reach
        assert set(red[outside[0] > 0].tolist()) == {0.0}


def test_the_object_that_was_there_stays_in_the_mask() -> None:
    torch.manual_seed(1)
    _, mask = paste(flat(GREEN), square(), flat(RED), torch.zeros(1, 64, 96))
    assert torch.equal(mask, square())


def test_a_background_holds_nothing_of_the_object() -> None:
    picture = torch.where(square().bool(), flat(RED), flat(GREEN))
    strip = free_strip(picture, square())
    assert strip is not None
    assert torch.equal(strip, flat(GREEN))


def test_a_picture_without_object_is_a_background_and_one_full_of_it_is_none() -> None:
    full = torch.zeros(1, 64, 96)
    full[:, 8:60, 10:90] = 1
    assert free_strip(flat(GREEN), full) is None
    assert free_strip(flat(GREEN), torch.zeros(1, 64, 96)) is not None


def test_copy_paste_varies_samples_and_depends_on_seed_epoch_and_index_alone() -> None:
    def items(augmentation: str, epoch: int) -> list[Tensor]:
        data = SaliencyDataset(scenes(12), Preprocessing(size=(64, 64)), lambda mask: {}, augmentation, 0, epoch)  # type: ignore[arg-type]
        return [data[index]["image"] for index in range(len(data))]

    pasted, strong = items("paste", 2), items("strong", 2)
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(pasted, items("paste", 2), strict=True))
    same = sum(torch.equal(a, b) for a, b in zip(pasted, strong, strict=True))
    assert 1 <= same <= 10
