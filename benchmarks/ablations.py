"""What the parts of each method are worth: short trainings with a part left out, over several seeds, and verdicts.

    python -m benchmarks.ablations --data DATA --weights mobilenet_v2-imagenet.safetensors --output ablations \
        --bundle lps=bundles/lps cgd=bundles/cgd --jobs 2 --json ablations.json

DATA holds splits.json and the sets ecssd, horses and coseg; the training part is learned from, the test part scored.
The script may be stopped and started again: runs that are done are kept, one that was stopped goes on.
`ablation_plan.py` says what is trained and which claims of the papers it decides, `ablation_verdict.py` how.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.ablation_maps import score_checkpoint, score_descent, score_promotion
from benchmarks.ablation_plan import CLAIMS, VARIANTS, Claim, Variant
from benchmarks.ablation_verdict import Outcome, decided
from benchmarks.evidence import Evidence
from salience.runtime.files import atomic_path, write_atomic

SCORES_FILE = "scores.npz"
_ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, score it, judge, print and write."""
    options = parse_options(arguments)
    jobs = [(variant, seed) for seed in options.seeds for variant in chosen(options.methods)]
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = [line for line in pool.map(partial(run, options=options), jobs) if line]
    if failed:
        raise SystemExit("\n".join(failed))
    outcomes = trained_outcomes(options) | bundle_outcomes(options)
    claims = [judged(claim, outcomes[claim.study], options.seeds) for claim in CLAIMS if claim.study in outcomes]
    report(claims)
    if options.json:
        found = {"evidence": Evidence.gather().model_dump(), "runs": run_records(options), "claims": claims}
        write_atomic(options.json, f"{json.dumps(found, indent=1)}\n".encode())


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `bundle` becomes a dict of method and folder."""
    parser = argparse.ArgumentParser(description="What the parts of each method are worth.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2's, trained on ImageNet")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--bundle", nargs="*", default=[], metavar="METHOD=DIR", help="of lps and cgd")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=sorted({v.method for v in VARIANTS}))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each with its share of the cores")
    parser.add_argument("--count", type=int, default=50, help="pictures for cgd, the first by name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    pairs = [text.partition("=")[::2] for text in options.bundle]
    wrong = [f"{method}={folder}" for method, folder in pairs if method not in {"lps", "cgd"} or not folder]
    if wrong:
        parser.error(f"--bundle {wrong[0]}: expected lps=DIR or cgd=DIR.")
    unknown = sorted(set(options.methods) - {v.method for v in VARIANTS})
    if unknown:
        parser.error(f"--methods {unknown[0]}: expected some of {', '.join(sorted({v.method for v in VARIANTS}))}.")
    options.bundle = dict(pairs)
    return options


def chosen(methods: Sequence[str]) -> list[Variant]:
    """The variants of `methods`."""
    return [variant for variant in VARIANTS if variant.method in methods]


def folder_of(variant: Variant, seed: int, output: Path) -> Path:
    """Where a run lies."""
    return output / variant.method / variant.name.replace(" ", "-") / f"seed{seed}"


def run(job: tuple[Variant, int], options: argparse.Namespace) -> str:
    """Train and score one variant with one seed, unless that is done; what went wrong, or nothing."""
    variant, seed = job
    folder = folder_of(variant, seed, options.output)
    if (folder / SCORES_FILE).exists():
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / "log.txt").open("a") as log:
        code = subprocess.run(  # noqa: S603
            command(variant, seed, folder, options), cwd=_ROOT, env=environment, stdout=log, stderr=log, check=False
        ).returncode
    if code:
        return f"{folder}: training ended with exit code {code}; see {folder / 'log.txt'}."
    outcome = score_checkpoint(folder / "last.safetensors", variant.method, options.data, threads=threads)
    with atomic_path(folder / SCORES_FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, curves=outcome.curves[0], errors=outcome.errors[0])
    return ""


def command(variant: Variant, seed: int, folder: Path, options: argparse.Namespace) -> list[str]:
    """The training of a run."""
    data = [part for name in variant.sets for part in ("--data", str((options.data / name).resolve()))]
    return [
        sys.executable, str(_ROOT / "training/train.py"), variant.method, *data,
        "--splits", str((options.data / "splits.json").resolve()), "--backbone", "mobilenet_v2",
        "--weights", str(options.weights.resolve()), *variant.arguments(), "--seed", str(seed), "--resume",
        "--output", str(folder.resolve()),
    ]  # fmt: skip


def trained_outcomes(options: argparse.Namespace) -> dict[str, dict[str, Outcome]]:
    """By method and variant, its seeds together."""
    found: dict[str, dict[str, Outcome]] = {}
    for variant in chosen(options.methods):
        parts = [read_scores(folder_of(variant, seed, options.output)) for seed in options.seeds]
        curves, errors = (np.stack(values) for values in zip(*parts, strict=True))
        found.setdefault(variant.method, {})[variant.name] = Outcome(curves, errors)
    return found


def read_scores(folder: Path) -> tuple[Any, Any]:
    """What `run` wrote."""
    with np.load(folder / SCORES_FILE, allow_pickle=False) as file:
        return file["curves"], file["errors"]


def bundle_outcomes(options: argparse.Namespace) -> dict[str, dict[str, Outcome]]:
    """What needs no training: the forms of `lps` and `cgd`, by study."""
    found: dict[str, dict[str, Outcome]] = {}
    if "lps" in options.bundle:
        found["lps, contrast maps"] = score_promotion(options.bundle["lps"], options.data, "coseg", "priors_contrast")
        found["lps, CSNet's maps"] = score_promotion(options.bundle["lps"], options.data, "ecssd", "priors_csnet")
    if "cgd" in options.bundle:
        found["cgd"] = score_descent(options.bundle["cgd"], options.data, count=options.count)
    return found


def judged(claim: Claim, outcomes: dict[str, Outcome], seeds: Sequence[int]) -> dict[str, Any]:
    """A claim with its verdict and the scores behind it, for JSON."""
    form, without = outcomes[claim.form], outcomes[claim.without]
    rows = [
        {
            "variant": name,
            "seeds": list(seeds) if len(outcome.errors) > 1 else [],
            "pictures": outcome.errors.shape[1],
            "scores": {"f_max": outcome.f_max(), "mae": outcome.mae()},
        }
        for name, outcome in ((claim.form, form), (claim.without, without))
    ]
    return {"claim": claim.text, "method": claim.study, **decided(form, without), "rows": rows}


def run_records(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each run's length and validation scores."""
    records = []
    for variant in chosen(options.methods):
        for seed in options.seeds:
            history = json.loads((folder_of(variant, seed, options.output) / "history.json").read_text())
            records.append(
                {
                    "method": variant.method, "variant": variant.name, "seed": seed, "epochs": len(history),
                    "seconds": sum(epoch["seconds"] for epoch in history), "validation": history[-1]["scores"],
                }
            )  # fmt: skip
    return records


def report(claims: Sequence[dict[str, Any]]) -> None:
    """A table on standard output."""
    table = Table("method", "claim", "max F: with, without", "MAE: with, without", "verdict")
    for claim in claims:
        cells = [", ".join(f"{np.mean(row['scores'][key]):.4f}" for row in claim["rows"]) for key in ("f_max", "mae")]
        table.add_row(claim["method"], claim["claim"], *cells, claim["verdict"])
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
