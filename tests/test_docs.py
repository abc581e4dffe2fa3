"""What the documentation says is there, is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from salience.runtime.service.settings import Limits
from tests.test_readme import options_of

# Of other programs, named in the text.
FOREIGN_OPTIONS = {"--model-control-mode"}


@pytest.fixture(scope="module")
def pages(repository: Path) -> dict[str, str]:
    """The text of each page by its name."""
    return {path.name: path.read_text() for path in (repository / "docs").glob("*.md")}


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of some languages."""
    return [code for language, code in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S) if language in languages]


def commands(pages: dict[str, str]) -> list[str]:
    """The lines of all blocks of commands, those that go on joined."""
    code = "\n".join(block for text in pages.values() for block in blocks(text, "console", "bash"))
    return code.replace("\\\n", " ").splitlines()


def apps() -> dict[str, typer.Typer]:
    """The command lines by the program that starts them."""
    from salience.export.cli import app as build_engine
    from salience.export.model_repository.cli import app as triton_repository

    return {"export/build_engine.py": build_engine, "export/triton_repository.py": triton_repository}


def known_options() -> set[str]:
    from salience.runtime.cli import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    found = [options_of(app, name) for name in names] + [options_of(each) for each in apps().values()]
    return set().union(*found)


def test_the_site_builds_without_a_warning_and_asks_nobody_else(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list((tmp_path / "site").rglob("*.html"))
    assert len(built) == len(list((repository / "docs").glob("*.md"))) + 1, "one page each, and the one that says 404"
    loaded = (
        r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href|srcset)=[\"']?(?:https?:)?//|url\(\s*[\"']?https?://"
    )
    for path in [*built, *(tmp_path / "site").rglob("*.css")]:
        assert not re.search(loaded, path.read_text()), path


def test_every_option_of_a_command_exists(pages: dict[str, str]) -> None:
    from salience.runtime.cli import app

    checked = set()
    for line in commands(pages):
        words = shlex.split(line, comments=True)
        if words[:1] == ["salience"]:
            known = options_of(app, words[1])
        elif words[:1] == ["python"] and words[1] in apps():
            known = options_of(apps()[words[1]])
        else:
            continue
        assert {word for word in words if word.startswith("--")} <= known, line
        checked.add(words[1])
    assert checked >= {"predict", "serve", "batch", "inspect", "tune", "export/triton_repository.py"}


def test_every_option_in_the_text_exists(pages: dict[str, str]) -> None:
    known = known_options() | FOREIGN_OPTIONS
    for name, text in pages.items():
        named = set(re.findall(r"`(--[a-z][a-z-]*)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)))
        assert named <= known, name


def test_every_link_leads_somewhere(pages: dict[str, str]) -> None:
    links = [(name, target) for name, text in pages.items() for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    assert len(links) > 12
    for name, target in links:
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            titles = re.findall(r"^#+ (.+)$", pages[file or name], re.M)
            anchors = {re.sub(r"[^\w-]+", "-", title.lower()).strip("-") for title in titles}
            assert not anchor or anchor in anchors, target


def test_every_file_that_is_named_is_there(repository: Path, pages: dict[str, str]) -> None:
    folders = "benchmarks|docker|export|runtime|tests|training"
    named = {path for text in pages.values() for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text)}
    named |= {f"benchmarks/{each}.py" for text in pages.values() for each in re.findall(r"-m benchmarks\.(\w+)", text)}
    assert len(named) > 8
    for path in named:
        assert (repository / path).exists(), path


def test_every_page_is_on_the_list(repository: Path, pages: dict[str, str]) -> None:
    listed = re.findall(r"^  - .+: (\w+\.md)$", (repository / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == sorted(pages)


def test_examples_of_python_compile(pages: dict[str, str]) -> None:
    examples = [(name, code) for name, text in pages.items() for code in blocks(text, "python")]
    assert {name for name, _ in examples} == {"api.md", "scale.md", "service.md", "triton.md"}
    for name, code in examples:
        compile(code, name, "exec")


def test_the_manifest_fits_together_and_to_the_service(pages: dict[str, str]) -> None:
    from salience.runtime.cli import app

    yaml = pytest.importorskip("yaml")
    (manifests,) = blocks(pages["deployment.md"], "yaml")
    deployment, service = yaml.safe_load_all(manifests)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports
    assert {word for word in container["args"] if word.startswith("--")} <= options_of(app, "serve")


def test_the_metrics_are_those_of_the_service(repository: Path, pages: dict[str, str]) -> None:
    there = set(re.findall(r'"(salience_\w+)"', (repository / "runtime" / "service" / "metrics.py").read_text()))
    named = {re.sub("_(total|bucket)$", "", name) for name in re.findall(r"\bsalience_\w+", pages["deployment.md"])}
    assert named == there


def test_the_limits_are_those_of_the_service(repository: Path, pages: dict[str, str]) -> None:
    for page in (pages["deployment.md"], pages["security.md"]):
        assert f"{Limits.bytes >> 20} MiB" in page
        assert f"{Limits.pixels // 1_000_000} megapixels" in page
    server = (repository / "runtime" / "service" / "server.py").read_text()
    (more,) = re.findall(r"limit_concurrency=settings.limits.queue \+ (\d+)", server)
    assert f"`--queue` + {more} | {Limits.queue + int(more)} |" in pages["security.md"]
    (numbers,) = re.findall(
        r"_JSON_NUMBERS = ([\d_]+)", (repository / "runtime" / "service" / "tensors.py").read_text()
    )
    assert f"{int(numbers):,} | |" in pages["security.md"]
