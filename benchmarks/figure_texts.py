"""What README and benchmarks/README say of stored measurements: each function makes a block's text of its JSON."""

from statistics import mean
from typing import Any

from benchmarks.markdown_text import error, markdown_table, megabytes, ratio, seconds, sentences, share

Rows = list[dict[str, Any]]
Scores = dict[str, Any]


def export_gains(memory: Rows, speed: Rows) -> str:
    """What exporting `arn` and `lps` gains, in a sentence each."""
    peaks = {row["form"]: row["peak_bytes"] for row in memory if row["backend"] == "onnxruntime"}
    ten = {row["form"]: row for row in speed if row["iterations"] == 10}
    return sentences(
        f"With vgg16 on ONNX Runtime, one picture through `arn` takes {megabytes(peaks['arn-blocked'])} above the "
        f"loaded model where the plain form takes {megabytes(peaks['arn-naive'])}. Ten iterations of `lps` cost "
        f"{share(ten['ours']['to_first'], 2)} times one, and run {ratio(ten['released_eager']['to_ours'])} times as "
        "fast as the released form in PyTorch ([measured](benchmarks/README.md) on two CPU cores)."
    )


def ablations(results: dict[str, Rows]) -> str:
    """Each claim, its two sides as means over the seeds, and the verdict."""
    table = []
    for found in results["claims"]:
        scores = [
            " / ".join(share(mean(row["scores"][key]), 3 if key == "f_max" else 4) for row in found["rows"])
            for key in ("f_max", "mae")
        ]
        seeds = max(len(row["seeds"]) for row in found["rows"]) or ""
        table.append([found["method"], found["claim"], *scores, str(seeds), found["verdict"]])
    return markdown_table(["", "claim", "max F: with / without", "MAE: with / without", "seeds", "verdict"], table)


def promotion(curves: dict[str, Rows]) -> str:
    """Stored priors and what `lps` makes of them in one iteration and in ten."""
    titles = {
        "contrast maps of co-segmentation": "coseg priors_contrast",
        "CSNet's maps of ECSSD": "ecssd priors_csnet",
    }
    columns = ["`lps` promotes", *(f"{name}: {key}" for name in ("priors", "T = 1", "T = 10") for key in _PAIR)]
    rows = [[title, *_pairs(curves[key][t] for t in (0, 1, 10))] for title, key in titles.items()]
    return markdown_table(columns, rows)


def groups(results: dict[str, dict[str, Scores]]) -> str:
    """`gicd` beside `multis` on groups."""
    forms = {"`multis`, picture by picture": "multis, picture by picture", "`gicd`": "gicd"}
    return _group_table("test groups of co-segmentation", forms, results)


def group_forms(results: dict[str, dict[str, Scores]]) -> str:
    """All that was measured on groups."""
    forms = {
        "contrast maps": "priors_contrast",
        "`multis`, picture by picture": "multis, picture by picture",
        "`gicd` without induction": "gicd without induction",
        "`gicd`, each picture a group of its own": "gicd, each picture a group",
        "`gicd`": "gicd",
    }
    return _group_table("maps", forms, results)


def objects(results: dict[str, Scores]) -> str:
    """The preset of `cgd` beside plain gradients."""
    rows = {
        "`cgd`, plain gradients of squeezenet1_0": results["plain gradients (T = 1), raw"],
        "`cgd`, preset `default`": results["clamped, refined (preset default)"],
    }
    table = [[title, *_pairs([found])] for title, found in rows.items()]
    return markdown_table([f"{_images(rows)} test pictures of ECSSD", *_PAIR], table)


def object_steps(results: dict[str, Scores]) -> str:
    """Every step and preset of `cgd`; the last stage of a row is its whole."""
    stages = ("raw", "smoothed", "refined")
    clamped = [*(f"clamped, {stage}" for stage in stages[:2]), "clamped, refined (preset default)"]
    rows = {
        "plain gradients (T = 1): raw / smoothed / refined": [f"plain gradients (T = 1), {stage}" for stage in stages],
        "unclamped: raw / smoothed / refined": [f"unclamped, {stage}" for stage in stages],
        "clamped: raw / smoothed / refined (preset `default`)": clamped,
        "preset `paper`": ["preset paper"],
        "preset `released` (T = 35)": ["preset released"],
        "low-level map alone": ["low-level map alone"],
    }
    table = [
        [title, *(" / ".join(share(results[form][key]) for form in forms) for key in ("f_max", "s", "mae"))]
        for title, forms in rows.items()
    ]
    return markdown_table(["map", "max F", "S", "MAE"], table)


def promoter_speed(rows: Rows) -> str:
    """`lps` beside its released form, time and memory."""
    titles = {
        "ours": "ours",
        "ranked": "ours, rank 128",
        "released_eager": "released form, eager PyTorch",
        "released_exported": "released form, exported",
    }
    found = {(row["form"], row["iterations"]): row for row in rows}
    table = []
    for form, title in titles.items():
        one, ten = found[form, 1], found[form, 10]
        times = [seconds(row["median_s"]) for row in (one, ten)]
        table.append([title, *times, share(ten["to_first"], 2), ratio(ten["to_ours"]), megabytes(ten["peak_bytes"])])
    columns = ["form", "T = 1", "T = 10", "T = 10 to its T = 1", "T = 10 to ours", "peak memory at T = 10"]
    return markdown_table(columns, table)


def promoter_rounding(rows: Rows) -> str:
    """How far ONNX Runtime is from PyTorch on random weights."""
    changes = {row["form"]: f"{row['change']:.1e}".replace("e-0", "e-") for row in rows if row["iterations"] == 10}
    return sentences(
        "Between ONNX Runtime and PyTorch these random weights, which make much of little, amplify the rounding of "
        f"other convolution algorithms: to {changes['ours']} in ours, to {changes['released_exported']} in the "
        "released form."
    )


def attention_memory(rows: Rows) -> str:
    """Peak memory and time of `arn` and of its attention."""
    titles = {
        "attention-blocked": "attention, blocks of queries (exported)",
        "attention-naive": "attention, all scores at once",
        "attention-operator": "attention, ONNX operator Attention of opset 23",
        "arn-blocked": "`arn`, blocks of queries (exported)",
        "arn-naive": "`arn`, all scores at once",
    }
    cells = {
        (row["form"], row["backend"]): f"{megabytes(row['peak_bytes'])}, {seconds(row['median_s'])}" for row in rows
    }
    table = [[title, cells[form, "onnxruntime"], cells[form, "openvino"]] for form, title in titles.items()]
    return markdown_table(["form", "ONNX Runtime", "OpenVINO"], table)


_PAIR = ("max F", "MAE")


def _pairs(scores: Any) -> list[str]:
    """Max F and MAE of each, one after the other."""
    return [cell for found in scores for cell in (share(found["f_max"]), error(found["mae"]))]


def _group_table(title: str, forms: dict[str, str], results: dict[str, dict[str, Scores]]) -> str:
    table = []
    for name, form in forms.items():
        found = results[form]["all"]
        table.append([name, *(share(found[key]) for key in ("f_max", "f_mean", "s", "e_mean")), error(found["mae"])])
    return markdown_table([title, "max F", "mean F", "S", "mean E", "MAE"], table)


def _images(rows: dict[str, Scores]) -> int:
    """Of how many pictures the rows are, all of the same."""
    (count,) = {found["images"] for found in rows.values()}
    return int(count)
