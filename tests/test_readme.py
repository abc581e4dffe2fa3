"""What README tells a newcomer to type works."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from numpy.typing import NDArray
from PIL import Image


def commands(repository: Path) -> list[str]:
    """The indented lines of README that are shell commands, without their comments."""
    lines = re.findall(r"^    (\S.*)$", (repository / "README.md").read_text(), flags=re.MULTILINE)
    return [line.split("   #")[0].strip() for line in lines]


def examples(repository: Path) -> list[str]:
    """The blocks of Python in README: serving, promoting, the object of a class, a group."""
    return re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), flags=re.DOTALL)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, NDArray]) -> Path:  # type: ignore[type-arg]
    """A folder in which README's examples find their files."""
    Image.fromarray(photos["chelsea"]).save(tmp_path / "photo.jpg")
    return tmp_path


def options_of(app: typer.Typer, name: str | None = None) -> set[str]:
    command = typer.main.get_command(app)
    if name is not None:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_every_option_in_readme_exists(repository: Path) -> None:
    from salience.export import cli as export
    from salience.runtime import cli as runtime
    from salience.training import cli as training

    checked = 0
    for line in commands(repository):
        words = shlex.split(line.split(" < ")[0])
        if words[:2] == ["python", "export/build_engine.py"]:
            known = options_of(export.app)
        elif words[:2] == ["python", "training/train.py"]:
            known = options_of(training.app)
        elif words[0] == "salience":
            known = options_of(runtime.app, words[1])
        else:
            continue
        given = {word for word in words if word.startswith("--")}
        assert given <= known, line
        checked += 1
    assert checked >= 8


def test_every_make_target_in_readme_exists(repository: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))
    named = {line.split()[1] for line in commands(repository) if line.startswith("make ")}
    assert named == {"gpu-check", "native", "quickstart", "test"}
    assert named <= targets


def test_the_first_command_gives_a_map(repository: Path, folder: Path) -> None:
    assert "salience predict photo.jpg" in commands(repository)
    done = run([str(Path(sys.executable).with_name("salience")), "predict", "photo.jpg"], folder)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "saliency" / "photo.png") as saliency, Image.open(folder / "photo.jpg") as photo:
        assert saliency.size == photo.size
        assert saliency.mode == "L"


def test_the_python_example_runs(repository: Path, folder: Path) -> None:
    code = examples(repository)[0]
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "cutout.png") as cutout:
        assert cutout.mode == "RGBA"


def test_the_example_of_promotion_runs(
    repository: Path,
    folder: Path,
    bundle_of: Callable[[str], Path],
    photos: dict[str, NDArray],  # type: ignore[type-arg]
) -> None:
    code = "from salience.runtime import load\nimport numpy as np\nprior = np.eye(64, dtype=np.float32)\n"
    code += examples(repository)[1].replace("bundles/lps", str(bundle_of("lps")))
    Image.fromarray(photos["chelsea"][..., 0]).save(folder / "map.png")
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr


def test_the_example_of_a_class_runs(repository: Path, folder: Path, bundle_of: Callable[[str], Path]) -> None:
    code = "from salience.runtime import load\n" + examples(repository)[2].replace("bundles/cgd", str(bundle_of("cgd")))
    code = code.replace("tabby", "cat") + "assert found.label == 'cat' and len(found.classes(5)) == 5\n"
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr


def test_the_example_of_a_group_runs(
    repository: Path,
    folder: Path,
    bundle_of: Callable[[str], Path],
    photos: dict[str, NDArray],  # type: ignore[type-arg]
) -> None:
    for name, photo in zip("abc", photos.values(), strict=False):
        Image.fromarray(photo).save(folder / f"{name}.jpg")
    code = examples(repository)[3].replace("bundles/gicd", str(bundle_of("gicd")))
    code = f"from salience.runtime import load\n{code}assert len(maps) == 3\n"
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr


def test_the_package_s_bundle_finds_the_cat(folder: Path, photos: dict[str, NDArray]) -> None:  # type: ignore[type-arg]
    """The shipped network works: the cat's face, in the middle, is salient, the blurred room is not."""
    from salience.runtime import load

    values = load().predict(photos["chelsea"]).values
    assert values[100:200, 120:300].mean() > 0.8
    assert values[20:120, 420:].mean() < 0.2


@pytest.mark.slow
def test_the_trial_training_of_readme_runs(repository: Path, tmp_path: Path) -> None:
    (line,) = [line for line in commands(repository) if "--synthetic" in line]
    words = [sys.executable, *shlex.split(line)[1:-1], str(tmp_path / "trial")]
    done = run(words, repository)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trial" / "best.safetensors").exists()


@pytest.mark.slow
def test_the_base_install_predicts_without_torch(repository: Path, tmp_path: Path, folder: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    source = tmp_path / "source"
    shutil.copytree(
        repository, source, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", "bundles", "runs")
    )
    bare = run([str(python), "-m", "pip", "install", "--quiet", str(source)], tmp_path)
    assert bare.returncode == 0, bare.stderr
    without = run([str(environment / "bin" / "salience"), "predict", "photo.jpg"], folder)
    assert without.returncode == 1
    assert "salience[cpu]" in without.stderr
    assert "salience[gpu]" in without.stderr
    assert run([str(python), "-m", "pip", "install", "--quiet", f"{source}[cpu]"], tmp_path).returncode == 0
    done = run([str(environment / "bin" / "salience"), "predict", "photo.jpg"], folder)
    assert done.returncode == 0, done.stderr
    assert run([str(python), "-c", "import torch"], tmp_path).returncode != 0
