"""The container files agree with the project that they package; no image is built here."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest
import typer

from tests.runtime.service.running import free_port, running

NAMES = ("cpu", "gpu")


class Dockerfile:
    """The instructions of a Dockerfile, by name, in order."""

    def __init__(self, path: Path) -> None:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
        self.steps = [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]

    def last_stage(self) -> list[tuple[str, str]]:
        """The instructions that make the image."""
        start = max(index for index, (name, _) in enumerate(self.steps) if name == "FROM")
        return self.steps[start:]

    def one(self, name: str) -> str:
        """What stands after an instruction that the image has once."""
        (found,) = [rest for step, rest in self.last_stage() if step == name]
        return found

    def healthcheck(self) -> list[str]:
        """Its command."""
        words: list[str] = json.loads(self.one("HEALTHCHECK").partition("CMD ")[2])
        return words


@pytest.fixture(params=NAMES)
def dockerfile(request: pytest.FixtureRequest, repository: Path) -> Dockerfile:
    return Dockerfile(repository / "docker" / f"{request.param}.Dockerfile")


def serve_options() -> dict[str, object]:
    """Options of `salience serve` and their defaults."""
    from salience.runtime.cli import app

    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {option: parameter.default for parameter in command.params for option in parameter.opts}


def test_every_container_file_is_tested(repository: Path) -> None:
    assert {path.name for path in (repository / "docker").iterdir()} == {f"{name}.Dockerfile" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_extras_exist_and_hold_one_engine(repository: Path, name: str) -> None:
    known = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (repository / "docker" / f"{name}.Dockerfile").read_text()
    (named,) = re.findall(r"\.whl\)\[([\w,-]+)\]", text)
    extras = set(named.split(","))
    assert extras <= known.keys()
    assert "serve" in extras
    assert extras & {"cpu", "gpu"} == {name}


def test_bases_have_a_version(dockerfile: Dockerfile) -> None:
    bases = [rest.split()[0] for name, rest in dockerfile.steps if name == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.search(r":\d+\.\d+", base), base


def test_no_right_of_root_is_left(dockerfile: Dockerfile) -> None:
    user, _, group = dockerfile.one("USER").partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    names = [name for name, _ in dockerfile.last_stage()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])


def test_the_entry_point_is_the_service_for_everybody(dockerfile: Dockerfile) -> None:
    words = json.loads(dockerfile.one("ENTRYPOINT"))
    assert words[:4] == ["salience", "serve", "--host", "0.0.0.0"]  # noqa: S104
    assert {word for word in words if word.startswith("--")} <= serve_options().keys()


def test_the_ports_are_those_of_the_service(dockerfile: Dockerfile) -> None:
    defaults = serve_options()
    assert dockerfile.one("EXPOSE") == f"{defaults['--port']} {defaults['--grpc-port']}"
    (address,) = re.findall(r"'(http://[^']+)'", dockerfile.healthcheck()[-1])
    assert urlsplit(address).port == defaults["--port"]


def test_the_health_check_tells_a_service_that_is_ready(dockerfile: Dockerfile, tmp_path: Path) -> None:
    if find_spec("kserve") is None:  # not to be imported beside the clients' libraries
        pytest.skip("kserve is not installed")
    program, flag, code = dockerfile.healthcheck()
    assert (program, flag) == ("python", "-c")

    def healthy(port: int) -> bool:
        here = code.replace(f":{serve_options()['--port']}/", f":{port}/")
        assert here != code
        return subprocess.run([sys.executable, "-c", here], capture_output=True).returncode == 0

    with running(tmp_path) as found:
        assert healthy(found.port)
    assert not healthy(free_port())


def test_the_build_gets_what_the_wheel_is_made_of_and_no_more(repository: Path) -> None:
    patterns = [line for line in (repository / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    wanted = (
        "LICENSE", "README.md", "pyproject.toml", "src/salience/runtime", "runtime/cli/serve.py", "export/cli.py",
        "runtime/service/page/index.html", "runtime/default_bundle/manifest.json", "training/train.py",
    )  # fmt: skip
    for name in wanted:
        assert (repository / name).exists(), name
        assert not ignored(name, patterns), name
    unwanted = (
        ".git/config", "bundles/multis/manifest.json", "runs/a", ".venv/bin/python", ".env", "build/x", "docs/x",
        "tests/x", "quickstart/a.png", "runtime/cli/__pycache__/serve.pyc",
    )  # fmt: skip
    for name in unwanted:
        assert ignored(name, patterns), name


def ignored(name: str, patterns: list[str]) -> bool:
    """Whether Docker leaves a file out: the last pattern counts that matches it or a folder that it is in."""
    found = False
    for pattern in patterns:
        if any(matches(place, pattern.removeprefix("!")) for place in places(name)):
            found = not pattern.startswith("!")
    return found


def places(name: str) -> Iterator[PurePosixPath]:
    path = PurePosixPath("/", name)
    yield path
    yield from list(path.parents)[:-1]


def matches(place: PurePosixPath, pattern: str) -> bool:
    return place.match(pattern[3:]) if pattern.startswith("**/") else place.match(f"/{pattern}")
