"""The arithmetic and the text of `benchmarks.latency`, on records written by hand."""

import itertools
import json
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import latency
from benchmarks.evidence import Evidence, read_cpu, read_memory, without_folders
from benchmarks.forms import Form, Workload
from benchmarks.latency_check import compare
from benchmarks.latency_record import Peak, PhotoStep, PhotoSteps, Record, Row, Settings, percentile, with_ratios
from benchmarks.latency_table import markdown, plot
from benchmarks.photo_steps import AFTER, summary
from benchmarks.turns import take_turns
from salience.runtime.errors import DataError


def row(form: Form, seconds: list[float], *, method: str = "multis") -> Row:
    return Row.of(Workload(method, "vgg16", (224, 224), Path()), form).timed(seconds)


OURS = Form("salience", 1, 2, "onnxruntime", "int8")
EAGER = Form("eager", 1, 2)


def record(rows: list[Row], *, backbone: str = "vgg16", size: tuple[int, int] = (224, 224)) -> Record:
    sizes = {found.method: size for found in rows}
    return Record(
        settings=Settings(backbone=backbone, sizes=sizes, iterations=10, group=4),
        rounds=5,
        seed=0,
        evidence=Evidence(
            cpu="Some CPU", cores=2, flags=("avx2",), memory_bytes=1, load=0, system="", python="", commit=None,
            changed=None, versions={"torch": "2.0", "onnxruntime": "1.0"}, date="", command="",
        ),
        peaks=(Peak(threads=2, fp32=100, int8=400, by={}),),
        rows=tuple(with_ratios(rows)),
    )  # fmt: skip


def test_percentiles_are_samples_and_the_last_of_few_is_the_largest() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert (percentile(hundred, 0.9), percentile(hundred, 0.99), percentile(hundred, 1)) == (90, 99, 100)
    assert (percentile([3.0, 1.0, 2.0], 0.9), percentile([5.0], 0.5)) == (3, 5)


def test_times_are_of_one_picture() -> None:
    found = row(Form("eager", 1, 2), [0.4, 0.8, 0.6], method="gicd")  # a group of four
    assert found.pictures == 4
    assert found.samples_ms == pytest.approx((100, 200, 150))
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx((150, 200, 200))
    assert found.images_per_s == pytest.approx(1000 / 150)
    assert row(Form("eager", 8, 2), [0.8], method="gicd").p50_ms == pytest.approx(100)  # of eight
    assert row(Form("eager", 8, 2), [0.8]).p50_ms == pytest.approx(100)


def test_ratios_are_to_the_same_method_batch_and_threads() -> None:
    rows = [
        row(EAGER, [0.2]), row(OURS, [0.05]), row(OURS, [0.05], method="arn"),
        row(Form("salience", 8, 2, "onnxruntime"), [0.8]), row(Form("eager", 1, 4), [0.1]),
        row(Form("salience", 1, 4, "onnxruntime"), [0.05]),
    ]  # fmt: skip
    assert [found.to_eager for found in with_ratios(rows)] == [1, pytest.approx(0.25), None, None, 1, 0.5]


def test_a_share_of_the_peak_is_operations_over_time() -> None:
    found = row(OURS, [0.05]).counted(10**9, Peak(threads=2, fp32=50, int8=200, by={}).of("int8"))
    assert found.giga_per_s == pytest.approx(20)
    assert found.share_of_peak == pytest.approx(0.1)
    assert Peak(threads=2, fp32=50, int8=200, by={}).of("fp16-weights") == 50


@pytest.mark.parametrize(("ours", "slower"), [(0.057, False), (0.058, True), (0.01, False)])
def test_a_form_fails_the_check_where_its_ratio_grew_by_more_than_is_allowed(ours: float, slower: bool) -> None:
    baseline = record([row(EAGER, [0.2]), row(OURS, [0.05])])
    found = compare(baseline, record([row(EAGER, [0.2]), row(OURS, [ours])]), allow=0.15)
    assert bool(found.worse) is slower
    assert not found.missing
    assert all("multis 224 x 224, salience, onnxruntime int8, batch 1, 2 threads" in line for line in found.worse)


def test_the_check_looks_neither_at_times_nor_at_others_forms() -> None:
    exported = Form("export", 1, 2, "onnxruntime")
    baseline = record([row(EAGER, [0.2]), row(OURS, [0.05]), row(exported, [0.1])])
    slower_machine = record([row(EAGER, [2.0]), row(OURS, [0.5]), row(exported, [9.0])])
    assert not compare(baseline, slower_machine, allow=0).worse


def test_forms_of_one_side_are_named() -> None:
    other = Form("salience", 8, 2, "openvino")
    baseline = record([row(EAGER, [0.2]), row(OURS, [0.05])])
    found = compare(baseline, record([row(Form("eager", 8, 2), [1.0]), row(other, [0.5])]), allow=0.15)
    assert not found.worse
    assert [line.rpartition(": ")[2] for line in found.missing] == ["not in this run", "not in the baseline"]
    resized = record([row(EAGER, [0.2]), row(OURS, [0.9])], size=(64, 64))
    assert len(compare(baseline, resized, allow=0.15).missing) == 2


def test_runs_of_different_networks_are_not_compared() -> None:
    rows = [row(EAGER, [0.2]), row(OURS, [0.05])]
    with pytest.raises(DataError, match=r"measured with vgg16, .* this run with mobilenet_v2"):
        compare(record(rows), record(rows, backbone="mobilenet_v2"), allow=0.15)


@pytest.mark.parametrize(("ours", "code"), [(0.05, 0), (0.08, 1)])
def test_the_exit_code_says_whether_something_became_slower(
    ours: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "baseline.json"
    record([row(EAGER, [0.2]), row(OURS, [0.05])]).write(stored)
    run = record([row(EAGER, [0.2]), row(OURS, [ours])])
    monkeypatch.setattr(latency, "measure", lambda options: run)
    monkeypatch.setattr(sys, "argv", ["latency", "--check", str(stored), "--json", str(tmp_path / "run.json")])
    with pytest.raises(SystemExit) as ended:
        latency.main()
    assert ended.value.code == code
    assert ("salience, onnxruntime int8, batch 1, 2 threads: 0.400 of eager" in capsys.readouterr().out) is bool(code)
    assert Record.read(tmp_path / "run.json") == run


def test_what_is_no_record_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "missing.json"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read .*benchmarks\.latency --json"):
            Record.read(tmp_path / name)


def test_forms_take_turns_in_changing_orders_and_only_the_second_call_counts() -> None:
    clock = itertools.count().__next__
    ran: list[str] = []

    def call(name: str, steps: int) -> None:
        ran.append(name)
        # The first call in a row is as slow as it likes.
        for _ in range(steps if ran[-2:-1] == [name] else 50):
            clock()

    calls = {"a": lambda: call("a", 3), "b": lambda: call("b", 7), "c": lambda: call("c", 0)}
    times = take_turns(calls, rounds=6, seed=1, rest_s=0, long_s=1e9, enough_s=1e9, clock=lambda: float(clock()))
    pairs = list(zip(ran[::2], ran[1::2], strict=True))
    assert all(first == second for first, second in pairs)
    orders = [tuple(first for first, _ in pairs[start : start + 3]) for start in range(0, 18, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    # A form that closes a round and opens the next has run before its first call there.
    assert {times["a"][0], times["b"][0], times["c"][0]} == {4, 8, 1}


def test_long_forms_run_once_a_round_and_few_rounds() -> None:
    now, ran = [0.0], []

    def call(name: str, seconds: float) -> None:
        ran.append(name)
        now[0] += seconds

    calls = {"short": lambda: call("short", 0.5), "long": lambda: call("long", 5)}
    times = take_turns(calls, rounds=6, seed=1, rest_s=0, long_s=2, enough_s=12, clock=lambda: now[0])
    assert times == {"short": [0.5] * 6, "long": [5] * 3}
    assert ran.count("short") == 12
    assert ran.count("long") == 4  # once to find out


def test_records_of_other_methods_are_joined() -> None:
    one, other = (record([row(OURS, [seconds], method=name)]) for name, seconds in (("multis", 0.1), ("arn", 0.2)))
    other = other.model_copy(update={"settings": other.settings.model_copy(update={"sizes": {"arn": (224, 224)}})})
    one = one.model_copy(update={"settings": one.settings.model_copy(update={"sizes": {"multis": (224, 224)}})})
    found = one.joined(other)
    assert [each.method for each in found.rows] == ["multis", "arn"]
    assert found.settings.sizes.keys() == {"multis", "arn"}
    with pytest.raises(DataError, match="holds arn already"):
        found.joined(other)
    later = one.joined(record([row(Form("eager", 8, 2), [0.3], method="multis")]))
    assert [each.batch for each in later.rows] == [1, 8]
    with pytest.raises(DataError, match="other settings, rounds or another commit"):
        one.joined(other.model_copy(update={"rounds": 99}))


def test_tables_hold_figures_dashes_and_remarks() -> None:
    failed = Row.of(Workload("cgd", "vgg16", (224, 224), Path()), Form("export", 1, 2, "onnxruntime"))
    found = record(
        [row(EAGER, [0.2]), row(OURS, [0.05]).counted(10**9, 400).model_copy(update={"peak_bytes": 33 * 10**6}),
         failed.model_copy(update={"reason": "RuntimeError: no gradients"})],
    )  # fmt: skip
    found = found.model_copy(
        update={"photo_steps": PhotoSteps(size=(224, 224), rembg="rembg is not installed", steps=(
            PhotoStep(step="decode", ours_ms=4.56, rembg_ms=None, samples=20),))}
    )  # fmt: skip
    lines = markdown(found).splitlines()
    assert "Measured peak: 2 threads 100 GFLOP/s fp32 and 400 GOP/s int8." in lines[0]
    assert "**multis, vgg16, 224 x 224, ms per picture**" in lines
    assert "| salience, onnxruntime int8 | 1 | 2 | 50.0 | 50.0 | 50.0 | 20.0 | .25 | 20 | 5% | 33 | - |" in lines
    assert "| torch.onnx.export, onnxruntime fp32 | 1 | 2 | - | - | - | - | - | - | - | - | - |" in lines
    assert "- torch.onnx.export, onnxruntime fp32: RuntimeError: no gradients" in lines
    assert lines[-1] == "| decode | 4.56 | - |"


def test_the_plot_has_a_panel_for_each_method_and_batch(tmp_path: Path) -> None:
    one = record([row(EAGER, [0.2]), row(OURS, [0.01])])
    two = record([*one.rows, row(EAGER, [0.2], method="arn"), row(Form("eager", 8, 2), [0.2], method="arn")])
    sizes = []
    for found in (one, two):
        plot(found, tmp_path / "latency.png")
        with Image.open(tmp_path / "latency.png") as image:
            sizes.append(image.size)
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] > sizes[0][1]


def test_eager_stays_without_peers() -> None:
    options = latency.parse(["--batches", "1", "8", "--threads", "1", "2"])
    kinds = [form.kind for form in latency.all_forms(options)]
    assert (kinds.count("salience"), kinds.count("eager"), kinds.count("compile")) == (16, 4, 4)
    options = latency.parse(["--no-peers", "--batches", "1"])
    assert {form.kind for form in latency.all_forms(options)} == {"salience", "eager"}


def test_a_failure_takes_the_forms_that_it_names(tmp_path: Path) -> None:
    forms = latency.all_forms(latency.parse([]))
    run = latency.MethodRun(Workload("cgd", "vgg16", (224, 224), tmp_path), forms)
    run.fail("no int8", kind="salience", precision="int8")
    assert set(forms) - set(run.working()) == {f for f in forms if f.kind == "salience" and f.precision == "int8"}
    failed = next(form for form in forms if form.precision == "int8")
    assert run.explained(failed, Row.of(run.workload, failed)).reason == "no int8"


def test_photo_steps_are_medians_over_all_photographs() -> None:
    times = {(AFTER, "ours", "a"): [0.001, 0.002], (AFTER, "ours", "b"): [0.009], ("other", "ours", "a"): [5.0]}
    assert summary(times, AFTER) == PhotoStep(step=AFTER, ours_ms=2.0, rembg_ms=None, samples=3)
    assert summary({**times, (AFTER, "rembg", "a"): [0.004]}, AFTER).rembg_ms == 4.0


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("/home/me/data", "data"), ("multis=/tmp/bundles/multis/", "multis=multis"), ("runs/out.json", "runs/out.json"),
        ("--rounds", "--rounds"), ("1/2", "1/2"), ("/file", "file"),
    ],
)  # fmt: skip
def test_commands_are_recorded_without_a_machine_s_folders(word: str, kept: str) -> None:
    assert without_folders(word) == kept


def test_stored_results_name_no_folder_of_a_machine(repository: Path) -> None:
    stored = [json.loads(path.read_text()) for path in (repository / "benchmarks" / "results").glob("*.json")]
    commands = [found["evidence"]["command"] for found in stored if isinstance(found, dict) and "evidence" in found]
    assert len(commands) >= 4
    for command in commands:
        assert [without_folders(word) for word in shlex.split(command)] == shlex.split(command)


def test_evidence_reads_what_linux_says() -> None:
    text = "processor : 0\nmodel name\t: Some CPU 9\nflags\t\t: fpu avx2 avx512_vnni avx512_vnnix\n"
    assert read_cpu(text) == ("Some CPU 9", ("avx2", "avx512_vnni"))
    assert read_memory("MemTotal:       2048 kB\nMemFree: 1 kB\n") == 2048 * 1024
    assert (read_cpu(""), read_memory("")) == (("", ()), None)
    found = Evidence.gather()
    assert found.cores >= 1
    assert "onnxruntime" in found.versions
