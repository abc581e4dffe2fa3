"""What leaves export for `lps`: the rewritten iterations against the network's own definition, in every form."""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor
from typer.testing import CliRunner

from salience.export.graphs.lps import Chain, Definition, Embed, PromoterExport, Refine, contrast_prior
from salience.export.operators import subpixel_concat_node
from salience.export.pipeline import BuildSettings, build
from salience.export.tracing import trace
from salience.runtime.bundle import Bundle
from salience.runtime.cli import app
from salience.runtime.errors import ExportError, SalienceError
from salience.training.checkpoint import build_network
from salience.training.networks.lps import Promoter
from tests.conftest import small_checkpoint
from tests.released_lps import ReleasedForm

# Sums of another order, in fp32, through ten iterations; measured 2e-7 to 3e-6.
TOLERANCE = 2e-5
FORMS = [
    {"head": head, "region": region, "weighting": weighting, "stride": stride}
    for head, region, weighting, stride in itertools.product(
        ("linear", "nonlinear"), ("conv", "fc"), ("soft", "hard"), (4, 8)
    )
]


def network_of(**changes: Any) -> Promoter:
    """A small network with batch norm that does something, whose embeddings are not centred."""
    torch.manual_seed(3)
    network = build_network("lps", {"backbone": "mobilenet_v2", "width": 4, "embedding": 24} | changes)
    assert isinstance(network, Promoter)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()
        for _ in range(2):
            network(torch.randn(4, 3, 64, 64), torch.rand(4, 1, 64, 64))
        for module in network.subpixel.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
        if network.settings.region == "fc":  # regions further apart than a new layer puts them
            network.region.weight *= 4
    return network.eval()


def rewritten(network: Promoter, image: Tensor, prior: Tensor, iterations: int, rank: int | None = None) -> Tensor:
    state = Embed(network, rank)(image)
    refine, iteration = Refine(network), torch.zeros(1, dtype=torch.int64)
    for _ in range(iterations):
        prior, iteration = refine(*state, prior, iteration)
    assert int(iteration) == iterations
    return prior


def blob(count: int = 2, size: int = 64) -> Tensor:
    """A prior with an object of .9 on a background of .1, at another place in each picture."""
    prior = torch.full((count, 1, size, size), 0.1)
    for index in range(count):
        prior[index, :, 8 + 8 * index : 40, 10:50] = 0.9
    return prior


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
@torch.no_grad()
def test_rewritten_iterations_are_the_networks(form: dict[str, Any]) -> None:
    network, image, prior = network_of(**form), torch.randn(2, 3, 64, 64), blob()
    for iterations in (1, 3, 10):
        expected = network.promote(image, prior, iterations)
        found = rewritten(network, image, prior, iterations)
        spread = float(expected.std())
        assert spread > 1e-3, "a flat map would agree with anything"
        if form["weighting"] == "hard" and iterations > 1:
            # Where a pixel is at .5 but for rounding, rounding may move it to the other region, and the anchors a bit.
            assert float((found - expected).abs().mean()) < 0.05 * spread
        else:
            assert float((found - expected).abs().max()) < min(TOLERANCE, 5e-3 * spread)


@torch.no_grad()
def test_weighting_and_sharpness_may_be_chosen_at_export() -> None:
    trained, image, prior = network_of(), torch.randn(2, 3, 64, 64), blob()
    chosen = network_of(weighting="hard", sharpness=3.0)
    _, refine = PromoterExport(weighting="hard", sharpness=3.0).graphs(trained, (64, 64))
    state = (*Embed(trained, None)(image), prior, torch.zeros(1, dtype=torch.int64))
    feeds = {spec.name: values.numpy() for spec, values in zip(refine.inputs, state, strict=True)}
    given: Any = ReferenceEvaluator(trace(refine, "fp32")).run(None, feeds)
    found = torch.from_numpy(given[0])
    torch.testing.assert_close(found, chosen.promote(image, prior, 1), rtol=0, atol=TOLERANCE)
    soft = trained.promote(image, prior, 1)
    assert float((found - 0.5).abs().mean()) > 2 * float((soft - 0.5).abs().mean())
    assert trained.settings.weighting == "soft"


@pytest.mark.parametrize("form", [{}, {"head": "nonlinear"}], ids=str)
@torch.no_grad()
def test_the_priors_votes_may_be_chosen_at_export(form: dict[str, Any]) -> None:
    """At every iteration, in the graph that the runtimes run, and in the definition that it is checked with."""
    trained, chosen = network_of(**form), network_of(**form, prior_votes=1.5)
    image, prior = torch.randn(2, 3, 64, 64), blob()
    for iterations in (1, 3):
        expected = chosen.promote(image, prior, iterations)
        torch.testing.assert_close(rewritten(chosen, image, prior, iterations), expected, rtol=0, atol=TOLERANCE)
    _, refine = PromoterExport(prior_votes=1.5).graphs(trained, (64, 64))
    state = (*Embed(trained, None)(image), prior, torch.zeros(1, dtype=torch.int64))
    feeds = {spec.name: values.numpy() for spec, values in zip(refine.inputs, state, strict=True)}
    given: Any = ReferenceEvaluator(trace(refine, "fp32")).run(None, feeds)
    expected = chosen.promote(image, prior, 1)
    torch.testing.assert_close(torch.from_numpy(given[0]), expected, rtol=0, atol=TOLERANCE)
    assert float((expected - trained.promote(image, prior, 1)).abs().max()) > 0.05
    found, _ = Chain(Embed(chosen, None), Refine(chosen), (64, 64))(image)
    torch.testing.assert_close(found, Definition(chosen, (64, 64))(image)[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("backbone", ["timm:tf_efficientnet_lite0", "timm:resnet18"])
@torch.no_grad()
def test_backbones_of_timm_are_exported(backbone: str) -> None:
    network = network_of(backbone=backbone, stride=8)
    embed, _ = PromoterExport().graphs(network, (64, 64))
    model = trace(embed, "fp32")
    for count in (1, 3):
        image = torch.randn(count, 3, 64, 64)
        given: Any = ReferenceEvaluator(model).run(None, {"input": image.numpy()})
        for found, expected in zip(given, Embed(network, None)(image), strict=True):
            # Another order of the sums; embeddings are of the order of 1 to 100.
            tolerance = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=tolerance)
        prior = blob(count)
        found = rewritten(network, image, prior, 3)
        torch.testing.assert_close(found, network.promote(image, prior, 3), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_rewritten_iterations_are_the_released_codes() -> None:
    network, image, prior = network_of(), torch.randn(2, 3, 64, 64), blob()
    for iterations in (1, 3, 10):
        expected = ReleasedForm(network)(image, prior, iterations)
        torch.testing.assert_close(rewritten(network, image, prior, iterations), expected, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_all_directions_are_exact_and_fewer_come_nearer_with_their_number() -> None:
    network, image, prior = network_of(width=8, embedding=64), torch.randn(2, 3, 64, 64), blob()
    exact = network.promote(image, prior, 3)
    errors = [float((rewritten(network, image, prior, 3, rank) - exact).abs().max()) for rank in (2, 10, 30, 40)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < TOLERANCE


@pytest.mark.parametrize("region", ["conv", "fc"])
@torch.no_grad()
def test_an_inverted_prior_gives_the_inverted_map(region: str) -> None:
    network, image, prior = network_of(region=region), torch.randn(2, 3, 64, 64), blob()
    found = rewritten(network, image, 1 - prior, 3)
    torch.testing.assert_close(found, 1 - rewritten(network, image, prior, 3), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_a_background_of_one_pixel_is_no_matter_of_rounding() -> None:
    network, image = network_of(), torch.randn(1, 3, 64, 64)
    for least in (0.0, 254 / 255, 1 - 1e-4):
        prior = torch.ones(1, 1, 64, 64)
        prior[0, 0, 20, 30] = least
        found = rewritten(network, image, prior, 1)
        torch.testing.assert_close(found, 1 - rewritten(network, image, 1 - prior, 1), rtol=0, atol=TOLERANCE)
        assert float(found.min()) == float(found[0, 0, 20, 30]) < 0.5


@torch.no_grad()
def test_a_constant_prior_gives_a_half_and_an_empty_one_stays() -> None:
    network, image = network_of(), torch.randn(3, 3, 64, 64)
    values = torch.tensor([0.3, 0.0, 1.0])
    found = rewritten(network, image, values[:, None, None, None].expand(3, 1, 64, 64), 2)
    # Both anchors are the mean of all pixels, but for rounding.
    torch.testing.assert_close(found[0], torch.full((1, 64, 64), 0.5), rtol=0, atol=1e-4)
    assert bool((found[1] == 0).all())
    assert bool((found[2] == 1).all())


@pytest.mark.parametrize("head", ["linear", "nonlinear"])
@torch.no_grad()
def test_embeddings_leave_centred(head: str) -> None:
    embedding, norm, *rest = Embed(network_of(head=head), None)(torch.randn(2, 3, 64, 64))
    assert len(rest) == (2 if head == "nonlinear" else 0)
    assert float(embedding.mean(dim=2).abs().max()) < 1e-4 * float(embedding.abs().max())
    torch.testing.assert_close(norm, embedding.square().sum(dim=1, keepdim=True))


def test_the_node_names_the_strides_of_each_form() -> None:
    """A fused kernel reads them from the attributes; the body must too."""
    for stride, strides in ((4, (2, 4, 4, 4, 4)), (8, (2, 4, 8, 8, 8))):
        network = network_of(stride=stride)
        assert network.strides == strides
        maps = [torch.zeros(1, 4 * r * r, 64 // r, 64 // r) for r in strides]
        program = torch.export.export(_Join(strides), (tuple(maps),))
        (output,) = program.graph.find_nodes(op="output")
        assert tuple(output.args[0][0].meta["val"].shape) == (1, 20, 64, 64)


class _Join(torch.nn.Module):
    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return subpixel_concat_node(maps, self.strides)


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="rank 8: needs head linear"):
        PromoterExport(rank=8).graphs(network_of(head="nonlinear"), (64, 64))
    with pytest.raises(ExportError, match="rank 8: needs head linear and region conv, got linear, fc"):
        PromoterExport(rank=8).graphs(network_of(region="fc"), (64, 64))
    with pytest.raises(ExportError, match="the head has 20 directions"):
        PromoterExport(rank=21).graphs(network_of(), (64, 64))
    first = build_network("lps", {"backbone": "mobilenet_v2", "stage": "backbone"})
    with pytest.raises(ExportError, match="first training stage"):
        PromoterExport().graphs(first, (64, 64))  # type: ignore[arg-type]
    checkpoint = small_checkpoint(tmp_path, "lps")
    settings = BuildSettings(output=tmp_path / "out", options={"rank": "many"})
    with pytest.raises(SalienceError, match=r"--option: rank: .* known: rank"):
        build("lps", checkpoint, settings, step=lambda name: nullcontext())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_rank_is_measured_and_written_down(
    tmp_path: Path, pairs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from salience.export import verify

    # A random network makes much of one grey level, in which the two resizes may differ.
    monkeypatch.setitem(verify.METRIC_TOLERANCE, "fp32", 0.2)
    settings = BuildSettings(output=tmp_path / "lps", options={"rank": "20"}, images=pairs_folder)
    manifest = build("lps", small_checkpoint(tmp_path, "lps"), settings, step=lambda name: nullcontext())
    assert manifest.provenance["options"] == {"rank": 20}
    assert manifest.graphs["embed"].outputs[0].shape == ("batch", 20, 64 * 96)
    record = Bundle(tmp_path / "lps").verification()
    assert record is not None
    (loss,) = record.approximations
    assert loss.option == "rank 20"
    assert loss.kept.startswith("20 of 40 directions, ")
    assert 0 < loss.mean_abs < loss.max_abs < 1
    (metric,) = record.metrics
    assert metric.images == 12
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "lps")], env={"COLUMNS": "200"}).output
    assert "rank 20: 20 of 40 directions" in shown


def test_the_contrast_prior_stands_out_from_the_frame(photos: dict[str, Any]) -> None:
    image = np.full((40, 50, 3), 30, dtype=np.uint8)
    image[10:30, 15:35] = (200, 40, 90)
    prior = contrast_prior(image)
    assert prior.dtype == np.float32
    assert prior.max() == 1
    assert prior[0, 0] == 0
    assert contrast_prior(np.zeros((4, 4, 3), dtype=np.uint8)).max() == 0
    assert 0 <= contrast_prior(photos["coffee"]).min() <= contrast_prior(photos["coffee"]).max() <= 1


def test_the_bundle_has_the_graphs_that_the_runtime_runs(bundle_of: Callable[[str], Path]) -> None:
    manifest = Bundle(bundle_of("lps")).manifest
    assert set(manifest.graphs) == {"preprocess", "prior", "postprocess", "embed", "refine"}
    pixels = 64 * 96
    shapes = {spec.name: spec.shape for spec in manifest.graphs["refine"].inputs}
    assert shapes == {
        "embedding": ("batch", 40, pixels), "norm": ("batch", 1, pixels),
        "prior": ("batch", 1, 64, 96), "iteration": (1,),
    }  # fmt: skip
