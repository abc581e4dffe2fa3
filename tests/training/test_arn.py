from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from salience.runtime.errors import CheckpointError
from salience.training.checkpoint import build_network
from salience.training.losses import soft_iou_loss
from salience.training.networks.arn import (
    AttentionRecurrent,
    AttentionRecurrentSettings,
    RecurrentConv,
    ResponseNorm,
    SelfAttention,
    Stage,
    fused_attention,
)
from salience.training.optim import build_optimiser
from salience.training.recipes.arn import AttentionRecurrentRecipe


def arn(**settings: Any) -> AttentionRecurrent:
    torch.manual_seed(0)
    network = build_network("arn", settings).eval()
    assert isinstance(network, AttentionRecurrent)
    return network


def stages_of(network: AttentionRecurrent) -> list[Stage]:
    return [stage for stage in network.stages if isinstance(stage, Stage)]


def sizes(layer: nn.Module) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Channels in and out, kernel and stride."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    return layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride


@pytest.fixture(scope="module")
def paper_network() -> AttentionRecurrent:
    return arn()


@pytest.fixture(scope="module")
def light_network() -> AttentionRecurrent:
    return arn(backbone="mobilenet_v2", width=32, norm=True)


@contextmanager
def input_and_output_shapes(modules: Sequence[nn.Module]) -> Iterator[list[tuple[Any, Any]]]:
    """Filled, while the modules run, with each one's first input's and output's (channels, height, width)."""
    seen: list[tuple[Any, Any]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))

    hooks = [module.register_forward_hook(note) for module in modules]
    yield seen
    for hook in hooks:
        hook.remove()


def test_layers_are_those_of_the_paper(paper_network: AttentionRecurrent) -> None:
    stages = stages_of(paper_network)
    assert [sizes(stage.up[0]) for stage in stages] == [
        (512, 256, (4, 4), (2, 2)), (256, 128, (4, 4), (2, 2)), (128, 64, (4, 4), (2, 2)),
    ]  # fmt: skip
    assert [(sizes(stage.side.forwards), sizes(stage.side.recurrent)) for stage in stages] == [
        ((side, width, (3, 3), (1, 1)), (width, width, (3, 3), (1, 1)))
        for side, width in ((512, 256), (256, 128), (128, 64))
    ]
    assert [[sizes(m) for m in stage.merge.modules() if isinstance(m, nn.Conv2d)] for stage in stages] == [
        [(2 * width, width, (3, 3), (1, 1)), (width, width, (3, 3), (1, 1))] for width in (256, 128, 64)
    ]
    assert [stage.side.steps for stage in stages] == [3, 3, 3]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in paper_network.modules())


def test_attention_has_an_eighth_of_the_channels_for_queries_and_keys(paper_network: AttentionRecurrent) -> None:
    blocks: list[Any] = [paper_network.top, *(stage.attention for stage in stages_of(paper_network))]
    assert [(sizes(block.query), sizes(block.key), sizes(block.value)) for block in blocks] == [
        ((c, c // 8, (1, 1), (1, 1)), (c, c // 8, (1, 1), (1, 1)), (c, c, (1, 1), (1, 1)))
        for c in (512, 256, 128, 64)
    ]  # fmt: skip


def test_maps_double_from_the_top_to_conv2_2(paper_network: AttentionRecurrent) -> None:
    """At 224 these are the paper's 14, 28, 56 and 112."""
    blocks = [paper_network.top, *(stage.attention for stage in stages_of(paper_network))]
    sides = [stage.side for stage in stages_of(paper_network)]
    with torch.no_grad(), input_and_output_shapes(blocks) as attended, input_and_output_shapes(sides) as recurrent:
        paper_network(torch.zeros(1, 3, 32, 64))
    assert [found for _, found in attended] == [(512, 2, 4), (256, 4, 8), (128, 8, 16), (64, 16, 32)]
    assert all(given == found for given, found in attended)
    assert recurrent == [((512, 4, 8), (256, 4, 8)), ((256, 8, 16), (128, 8, 16)), ((128, 16, 32), (64, 16, 32))]


def test_the_number_of_parameters_is_exact(paper_network: AttentionRecurrent) -> None:
    """With s -> w channels a 3x3 convolution has 9sw + w parameters, a deconvolution 16sw + w."""
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in paper_network.named_children()}
    assert counts == {
        "backbone": 14_714_688,  # VGG16's thirteen convolutions
        "top": 328_321,  # two 512 -> 64, one 512 -> 512, the scale
        # Level 4: 2,097,408 up, 1,179,904 forwards, 589,824 recurrent (no bias), 1,179,904 + 590,080 merge,
        # 82,241 attention; levels 3 and 2 likewise at half and a quarter of the widths.
        "stages": 5_719_361 + 1_430_177 + 357_713,
        "classifier": 65,
    }
    assert sum(counts.values()) == 22_550_325


@pytest.mark.parametrize("name", ["paper_network", "light_network"])
def test_the_map_has_the_inputs_size(name: str, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(name)
    with torch.no_grad():
        output = network(torch.randn(2, 3, 32, 64))
    assert output.logits.shape == output.saliency.shape == (2, 1, 32, 64)
    assert torch.equal(output.saliency, output.logits.sigmoid())


def test_batch_norm_stands_behind_deconvolutions_and_merging_convolutions(light_network: AttentionRecurrent) -> None:
    for stage in stages_of(light_network):
        kinds = [[type(m) for m in block] for block in (stage.up, *stage.merge)]
        assert kinds == [
            [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU],
            [nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
            [nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
        ]
        assert not any(isinstance(m, nn.BatchNorm2d) for m in stage.side.modules())


def test_new_layers_start_as_he_and_others_have_it(paper_network: AttentionRecurrent) -> None:
    for part in (paper_network.top, paper_network.stages, paper_network.classifier):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert layer.bias is None or not layer.bias.any()
    first = stages_of(paper_network)[0]
    # Over half a million draws the standard deviation is known to .1 %.
    assert float(first.side.recurrent.weight.detach().std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    # 2 x 2 of a deconvolution's 4 x 4 weights meet at each output.
    deconvolution = first.up[0]
    assert isinstance(deconvolution, nn.ConvTranspose2d)
    assert float(deconvolution.weight.detach().std()) == pytest.approx((2 / (4 * 512)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("settings", [{"width": 48}, {"steps": -1}, {"beta": -1.0}, {"depth": 3}])
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(settings))):
        build_network("arn", settings)


def naive_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Equations 2 and 3 as they stand: s = f^T g, beta sums to one over f's positions, o = h beta."""
    scores = key.transpose(1, 2) @ query
    beta = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    return value @ beta


def drawn(channels: int, positions: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(channels)
    query, key, value = (
        torch.randn(2, count, positions, generator=generator, dtype=dtype).requires_grad_()
        for count in (channels // 8, channels // 8, channels)
    )
    return query, key, value


# The scores of some ten terms are below 20: exp loses no more than 20 roundings of its argument.
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 1e-9, 1e-11), (torch.float32, 1e-3, 1e-4)])
@pytest.mark.parametrize(("channels", "positions"), [(8, 1), (16, 35), (64, 77)])
def test_fused_attention_is_the_papers(
    channels: int, positions: int, dtype: torch.dtype, rtol: float, atol: float
) -> None:
    tensors = drawn(channels, positions, dtype)
    fused, naive = fused_attention(*tensors), naive_attention(*tensors)
    assert fused.dtype == dtype
    assert torch.allclose(fused, naive, rtol=rtol, atol=atol)
    weight = torch.randn(naive.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    gradients = [torch.autograd.grad((found * weight).sum(), tensors) for found in (fused, naive)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=rtol, atol=atol)


def test_the_softmax_runs_over_the_positions_of_f() -> None:
    """Three positions of which g is strong at the last and f at the first: there alone the first's value arrives."""
    key, query = torch.tensor([[[9.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 0.0, 9.0]]])
    value = torch.eye(3)[None]
    attended = fused_attention(query, key, F.pad(value, (0, 0, 0, 5)))[0, :3]
    third = torch.full((3,), 1 / 3)
    assert torch.allclose(attended.T, torch.stack([third, third, torch.tensor([1.0, 0.0, 0.0])]), atol=1e-6)


def test_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 5, 7)
    block = SelfAttention(16)
    assert torch.equal(block(x), x)
    block(x).sum().backward()
    assert block.scale.grad is not None
    assert float(block.scale.grad.abs()) > 0  # it can leave 0


def test_self_attention_adds_the_scaled_mixture() -> None:
    torch.manual_seed(2)
    block, x = SelfAttention(16), torch.randn(2, 16, 5, 7)
    nn.init.constant_(block.scale, 0.7)
    f, g, h = (layer(x).flatten(2) for layer in (block.key, block.query, block.value))
    expected = 0.7 * naive_attention(g, f, h).view(2, 16, 5, 7) + x
    assert torch.allclose(block(x), expected, atol=1e-5)  # sums of 35 terms in fp32
    assert not torch.allclose(block(x), 0.7 * naive_attention(f, g, h).view(2, 16, 5, 7) + x, atol=1e-2)


class LargestTensor(TorchDispatchMode):
    """Remembers how many numbers the largest storage had that any operator, of the backward pass too, gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self.numbers = max(self.numbers, leaf.untyped_storage().nbytes() // leaf.element_size())
        return found


def largest_tensor(block: SelfAttention, x: Tensor) -> int:
    probe = LargestTensor()
    with probe:
        block(x).square().sum().backward()
    return probe.numbers


@pytest.mark.slow
def test_training_never_holds_the_matrix_of_all_positions() -> None:
    block, x = SelfAttention(64), torch.randn(1, 64, 112, 112)
    nn.init.constant_(block.scale, 0.5)
    # Queries, keys and values of 64 x 12544 are as large as the map itself; nothing is larger.
    assert largest_tensor(block, x) <= 2 * x.numel() < 12544**2 / 90
    assert block.query.weight.grad is not None
    assert bool(block.query.weight.grad.any())
    # The same probe sees the naive form's matrix (on the meta device, where it takes no memory).
    block.to("meta").attend = naive_attention
    assert largest_tensor(block, x.to("meta")) >= 12544**2


def test_attention_stays_fused_under_mixed_precision() -> None:
    torch.manual_seed(0)
    block, x = SelfAttention(32), torch.randn(1, 32, 16, 16)
    nn.init.constant_(block.scale, 0.5)
    with torch.autocast("cpu", torch.bfloat16), LargestTensor() as probe:
        found = block(x)
    assert probe.numbers <= x.numel() < 256**2
    # bfloat16 rounds to 1 in 256; values and weights of the mixture are of order 1.
    assert float((found.float() - block(x)).abs().max().detach()) < 0.05


@pytest.mark.parametrize("channels", [16, 64, 256])  # windows of 3, 9 and 33 channels
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.3])
def test_response_norm_is_pytorchs(channels: int, beta: float) -> None:
    x = 20 * torch.rand(2, channels, 3, 5)
    found = ResponseNorm(channels, alpha=0.05, beta=beta)(x)
    expected = F.local_response_norm(x, channels // 8 + 1, alpha=0.05, beta=beta, k=1.0)
    assert torch.allclose(found, expected, rtol=1e-5)
    assert not torch.allclose(found, x, rtol=0.1)


@pytest.mark.parametrize("channels", [8, 16, 24, 32, 64])  # N is 2, 3, 4, 5 and 9: N / 2 to both sides, rounded down
def test_response_norm_is_equation_8(channels: int) -> None:
    alpha, beta, window = 1e-3, 0.75, channels // 8 + 1
    x = 50 * torch.rand(1, channels, 1, 2, dtype=torch.float64)
    expected = torch.empty_like(x)
    for k in range(channels):
        neighbours = range(max(0, k - window // 2), min(channels - 1, k + window // 2) + 1)
        total = sum((x[:, other] ** 2 for other in neighbours), torch.zeros(()))
        expected[:, k] = x[:, k] / (1 + alpha / window * total) ** beta
    assert torch.allclose(ResponseNorm(channels, alpha=alpha, beta=beta)(x), expected, rtol=1e-12)


def test_response_norm_does_not_overflow_in_half_precision() -> None:
    """The square of 2000 does; the maps of a deep layer are that large."""
    x = torch.full((1, 64, 2, 2), 2000.0)
    norm = ResponseNorm(64, alpha=1e-3, beta=0.75)
    assert torch.allclose(norm(x.half()).float(), norm(x), rtol=5e-3)  # half rounds to 1 in 2048, a few times


def recurrent(steps: int, **settings: Any) -> RecurrentConv:
    torch.manual_seed(3)
    return RecurrentConv(12, 16, AttentionRecurrentSettings(steps=steps, **settings))


def test_without_steps_the_state_is_the_feed_forward_input_alone() -> None:
    layer, x = recurrent(0, alpha=0.5), torch.randn(2, 12, 6, 5)
    expected = F.local_response_norm(layer.forwards(x).relu(), 3, alpha=0.5, beta=0.75, k=1.0)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert [name for name, _ in layer.named_parameters()] == ["forwards.weight", "forwards.bias"]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_each_step_adds_the_state_through_one_set_of_weights(steps: int) -> None:
    layer, x = recurrent(steps, alpha=0.5, beta=0.6), torch.randn(2, 12, 6, 5)
    feed = F.conv2d(x, layer.forwards.weight, layer.forwards.bias, padding=1)
    state = F.local_response_norm(F.relu(feed), 3, alpha=0.5, beta=0.6, k=1.0)
    earlier = state
    for _ in range(steps):
        earlier, z = state, feed + F.conv2d(state, layer.recurrent.weight, padding=1)  # eq. 6; its bias is feed's
        state = F.local_response_norm(F.relu(z), 3, alpha=0.5, beta=0.6, k=1.0)
    assert torch.allclose(layer(x), state, atol=1e-5)  # at most six convolutions of 150 terms in fp32
    assert not torch.allclose(layer(x), earlier, atol=1e-4)


@pytest.mark.parametrize("iou", [0.0, 0.5])
def test_loss_is_cross_entropy_and_as_much_overlap_as_asked_for(light_network: AttentionRecurrent, iou: float) -> None:
    batch = {"image": torch.randn(2, 3, 64, 64), "mask": (torch.rand(2, 1, 64, 64) > 0.5).float()}
    with torch.no_grad():
        loss, saliency = AttentionRecurrentRecipe(iou=iou).loss(light_network, batch)
        expected = light_network(batch["image"]).saliency
    total = F.binary_cross_entropy(expected, batch["mask"]) + iou * soft_iou_loss(expected, batch["mask"])
    assert float(loss) == pytest.approx(float(total), rel=1e-5)
    assert torch.equal(saliency, expected)


def test_every_parameter_learns() -> None:
    network = arn(backbone="mobilenet_v2", width=64).train()
    for block in network.modules():
        if isinstance(block, SelfAttention):
            nn.init.constant_(block.scale, 0.5)
    batch = {"image": torch.randn(2, 3, 64, 64), "mask": (torch.rand(2, 1, 64, 64) > 0.5).float()}
    AttentionRecurrentRecipe().loss(network, batch)[0].backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    # The keys' bias moves all scores of a query alike, which the softmax does not see.
    assert [name for name in still if not name.endswith("key.bias")] == []


def test_the_papers_optimiser_is_the_default() -> None:
    recipe = AttentionRecurrentRecipe()
    defaults = recipe.defaults()
    assert recipe.iou == 0
    assert (defaults.optimiser, defaults.rate, defaults.backbone_rate, defaults.decay) == ("adam", 1e-4, 1.0, 0.0)
    optimiser = build_optimiser(nn.Linear(1, 1), defaults)
    assert isinstance(optimiser, torch.optim.Adam)
    assert {group["betas"] for group in optimiser.param_groups} == {(0.9, 0.999)}
    assert recipe.labels(torch.ones(1, 4, 4)) == {}


def test_attention_can_be_left_out() -> None:
    network = build_network("arn", {"backbone": "mobilenet_v2", "width": 32, "attention": False})
    assert not any(isinstance(module, SelfAttention) for module in network.modules())
    assert network(torch.randn(1, 3, 64, 64)).saliency.shape == (1, 1, 64, 64)
