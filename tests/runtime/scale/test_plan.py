"""What there is to do, and what is refused before anything is written."""

import subprocess
import sys
from pathlib import Path

import pytest

from salience.runtime.errors import DataError
from salience.runtime.scale.plan import make_plan
from salience.runtime.scale.state import State
from salience.runtime.scale.units import Pictures

from .samples import write_shard, write_table


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")
    return path


def test_pictures_keep_their_places_and_are_cut_for_the_workers(tmp_path: Path) -> None:
    for index in range(40):
        write_picture(tmp_path / "in" / f"{index % 2}" / f"{index}.jpg")
    units = make_plan(tmp_path / "in", tmp_path / "out", None).cut(workers=2)
    assert all(isinstance(unit, Pictures) for unit in units)
    jobs = [job for unit in units if isinstance(unit, Pictures) for job in unit.jobs]
    assert len(units) >= 16
    assert len({unit.name for unit in units}) == len(units)
    assert {job.target.relative_to(tmp_path / "out") for job in jobs} == {
        job.source.relative_to(tmp_path / "in").with_suffix(".png") for job in jobs
    }
    assert len(jobs) == 40


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "1.jpg")
    write_shard(tmp_path / "in" / "deep" / "s.tar", [("1.jpg", b"x")])
    with pytest.raises(DataError, match=r"holds 1 shards \(such as .*s\.tar\) and 1 pictures .* expected one kind"):
        make_plan(tmp_path / "in", tmp_path / "out", None)


def test_results_are_no_inputs(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", [("1.jpg", b"x")])
    write_shard(tmp_path / "out" / "s.tar", [("1.png", b"x")])
    plan = make_plan(tmp_path, tmp_path / "out", None)
    assert [unit.source for unit in plan.units] == [tmp_path / "s.tar"]
    with pytest.raises(DataError, match="is the output folder too"):
        make_plan(tmp_path, tmp_path, None)
    with pytest.raises(DataError, match="is itself an input"):
        make_plan(tmp_path / "s.tar", tmp_path, None)


@pytest.mark.parametrize(("name", "message"), [("missing", "no such file"), ("empty", "holds no pictures")])
def test_an_input_without_anything_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        make_plan(tmp_path / name, tmp_path / "out", None)


def test_a_column_of_pictures_is_an_error(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "1.jpg")
    with pytest.raises(DataError, match="--column image: is for shards and tables"):
        make_plan(tmp_path / "in", tmp_path / "out", "image")


def test_a_damaged_table_is_a_failure_beside_the_others(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_table(tmp_path / "in" / "a" / "t.parquet", rows=2, image=[b"1", b"2", b"3"])
    write_picture(tmp_path / "in" / "b" / "t.parquet")
    plan = make_plan(tmp_path / "in", tmp_path / "out", None)
    assert len(plan.units) == 2
    assert [failure.source for failure in plan.earlier.failures] == [tmp_path / "in" / "b" / "t.parquet"]


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    # A run that came to no result binds nobody.
    State(tmp_path, "none").begin()
    State(tmp_path, "one").begin()
    State(tmp_path, "one").note()
    State(tmp_path, "one").begin()
    with pytest.raises(DataError, match="other options"):
        State(tmp_path, "two").begin()


def test_importing_is_light() -> None:
    code = (
        "import sys, salience.runtime.cli.batch, salience.runtime.scale.deployment; "
        "print(*{'ray', 'pyarrow', 'starlette', 'onnxruntime'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
