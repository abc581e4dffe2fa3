"""Time per picture of the methods that need a gradient, beside eager PyTorch with autograd, in one process.

    python -m benchmarks.gradient_speed --backbone vgg16 --backends onnxruntime openvino --json gradient_speed.json

`cgd`: T steps of the descent. `gicd`: both passes over a group, per picture. Weights are random, on which speed does
not depend; the forms take turns, figures are medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from salience.export.graph import MethodExport
from salience.export.graphs.cgd import ClampedDescentExport
from salience.export.graphs.gicd import GradientInducedExport
from salience.export.tracing import trace
from salience.runtime.backends import BACKENDS
from salience.runtime.backends.engine import Engine, EngineOptions
from salience.runtime.driver import iterate
from salience.runtime.low_level import Descent
from salience.runtime.methods.cgd import DescentLoop, Problem
from salience.runtime.tables import entry
from salience.training.networks.cgd import Classifier, ClassifierSettings
from salience.training.networks.gicd import GradientInduced, GradientInducedSettings, average_pool, decode, resize

Call = Callable[[], Any]
SIZE = (224, 224)


def main() -> None:
    """Measure and print; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(description="Speed of cgd and gicd beside eager autograd.")
    parser.add_argument("--backbone", default="vgg16", choices=["vgg16", "mobilenet_v2"])
    parser.add_argument("--backends", nargs="+", default=["onnxruntime"], choices=["onnxruntime", "openvino"])
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for method, make in (("cgd", clamped_forms), ("gicd", group_forms)):
        with tempfile.TemporaryDirectory() as folder:
            forms, pictures = make(options, Path(folder))
            times: dict[str, list[float]] = {name: [] for name in forms}
            for turn in range(options.rounds + 1):
                for name, call in forms.items():
                    start = time.perf_counter()
                    call()
                    if turn:  # the first one warms up
                        times[name].append((time.perf_counter() - start) / pictures)
            medians = {name: statistics.median(found) for name, found in times.items()}
            rows += [
                {"method": method, "form": name, "median_s": median, "to_eager": median / medians["eager autograd"]}
                for name, median in medians.items()
            ]
    table = Table("method", "form", "median s per picture", "to eager autograd", title=f"{options.backbone}, 224 x 224")
    for row in rows:
        table.add_row(row["method"], row["form"], f"{row['median_s']:.3f}", f"{row['to_eager']:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def engines_of(export: MethodExport, network: Any, backend: str, folder: Path) -> dict[str, Engine]:
    """The method's graphs, traced once and opened."""
    found = {}
    for graph in export.graphs(network, SIZE):
        path = folder / f"{graph.name}.onnx"
        if not path.exists():
            onnx.save(trace(graph, "fp32"), path)
        engine_type = entry(BACKENDS, backend, what="backend")
        found[graph.name] = engine_type.open_graph(path, graph.entry({"fp32": path.name}), EngineOptions())
    return found


def clamped_forms(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Call], int]:
    """One picture through T steps."""
    torch.manual_seed(0)
    network = Classifier(ClassifierSettings(backbone=options.backbone)).eval()
    picture = np.random.default_rng(0).uniform(0, 255, (1, 3, *SIZE)).astype(np.float32)
    descent = Descent(iterations=options.iterations, gamma=1.0, step=2.0)
    problem = Problem(picture, np.zeros((1, len(network.settings.classes)), np.float32), descent)
    forms: dict[str, Call] = {"eager autograd": lambda: eager_descent(network, picture, descent)}
    for backend in options.backends:
        loop = DescentLoop(engines_of(ClampedDescentExport(), network, backend, folder)["descend"], 1)
        forms[backend] = lambda loop=loop: iterate(loop, problem)  # type: ignore[misc]
    return forms, 1


def eager_descent(network: Classifier, picture: NDArray[np.float32], descent: Descent) -> torch.Tensor:
    """The same steps as one writes them in PyTorch; weights need no gradients."""
    network.requires_grad_(False)
    image = torch.from_numpy(picture)
    reference, target = torch.zeros(0), torch.zeros(0)
    for step in range(descent.iterations):
        image = image.detach().requires_grad_()
        logits = network(image).logits
        if step == 0:
            reference, target = logits.detach(), logits.detach().argmax(dim=1)
        others = torch.ones_like(logits).scatter(1, target[:, None], 0.0)
        cost = logits[0, target] + descent.gamma / 2 * (others * (logits - reference) ** 2).sum()
        (gradient,) = torch.autograd.grad(cost.sum(), image)
        gradient = gradient.relu()
        image = image - descent.step * gradient / gradient.max()
    return image


def group_forms(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Call], int]:
    """A group through both passes, picture by picture in each."""
    torch.manual_seed(0)
    network = GradientInduced(GradientInducedSettings(backbone=options.backbone)).eval().requires_grad_(False)
    pictures = np.random.default_rng(0).standard_normal((options.group, 3, *SIZE), dtype=np.float32)
    forms: dict[str, Call] = {"eager autograd": lambda: eager_group(network, torch.from_numpy(pictures))}
    for backend in options.backends:
        engines = engines_of(GradientInducedExport(), network, backend, folder)
        forms[backend] = lambda engines=engines: exported_group(engines, pictures)  # type: ignore[misc]
    return forms, options.group


def eager_group(network: GradientInduced, pictures: torch.Tensor) -> list[torch.Tensor]:
    """The paper's arithmetic, the gradient with respect to F5 by autograd."""
    with torch.no_grad():
        embeddings = [network.embed(picture) for picture in pictures.split(1)]
        consensus = torch.cat([found.logits for found in embeddings]).sum(dim=0).softmax(dim=0)
    maps = []
    for found in embeddings:
        top = found.features[-1].requires_grad_()
        pooled = top.mean(dim=(2, 3)) if network.settings.backbone == "mobilenet_v2" else average_pool(top).flatten(1)
        similarity = (network.backbone.classifier(pooled) * consensus).sum()
        (gradient,) = torch.autograd.grad(similarity, top)
        with torch.no_grad():
            weights = gradient.relu().mean(dim=(2, 3), keepdim=True)
            maps.append(resize(decode(network.reduce, network.blocks, found.features, weights)[0], SIZE))
    return maps


def exported_group(engines: dict[str, Engine], pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The graphs, features kept between the passes."""
    embed, segment = engines["embed"].session(), engines["segment"].session()
    names = [name for name in engines["embed"].outputs if name != "logits"]
    kept, logits = [], []
    for picture in pictures:
        embed.feed("input", picture[None])
        embed.run()
        logits.append(embed.read("logits"))
        kept.append({name: embed.take(name) for name in names})
    total = np.sum(logits, axis=0)
    guide = engines["consensus"].run({"total": total - total.max()})["guide"]
    maps = []
    for features in kept:
        for name, held in features.items():
            segment.put(name, held)
        segment.feed("guide", guide)
        segment.run()
        maps.append(segment.read("saliency"))
    return maps


if __name__ == "__main__":
    main()
