from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from salience.runtime.commands import parse_pairs, report_errors
from salience.runtime.load_options import LoadOptions
from salience.runtime.option_groups import expand_options, option


@dataclass(frozen=True)
class Group:
    count: int = option(2, "How many.", min=1, panel="Engine")
    pairs: dict[str, str] = option(
        {}, "Pairs.", "--pair", given_as=list[str] | None, convert=lambda given: parse_pairs(given, "--pair")
    )
    loud: bool = option(False, "Loud.")


def application(seen: list[object]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @report_errors
    @expand_options
    def command(name: Annotated[str, typer.Argument(help="A name.")], own: int = 1, *, group: Group) -> None:
        """Do it."""
        seen.append((name, own, group))

    return app


def test_a_group_becomes_the_options_of_a_command() -> None:
    seen: list[object] = []
    arguments = ["x", "--own", "3", "--count", "5", "--pair", "a=1", "--pair", "b=2", "--loud"]
    assert CliRunner().invoke(application(seen), arguments).exit_code == 0
    assert seen == [("x", 3, Group(5, {"a": "1", "b": "2"}, loud=True))]


def test_defaults_limits_and_help_are_the_fields() -> None:
    seen: list[object] = []
    runner = CliRunner()
    assert runner.invoke(application(seen), ["x"]).exit_code == 0
    assert seen == [("x", 1, Group())]
    assert runner.invoke(application(seen), ["x", "--count", "0"]).exit_code == 2
    shown = runner.invoke(application(seen), ["--help"]).stdout
    assert "How many." in shown
    assert "--pair" in shown


def test_a_value_that_cannot_be_converted_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(application([]), ["x", "--pair", "nonsense"])
    assert result.exit_code == 1
    assert "--pair nonsense: expected NAME=VALUE." in result.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LoadOptions(), False),
        (LoadOptions(device="cuda:1"), True),
        (LoadOptions(provider="cpu"), False),
        (LoadOptions(provider="tensorrt"), True),
        (LoadOptions(cuda_graph=True), True),
        (LoadOptions(provider_options={"use_tf32": "1"}), True),
    ],
)
def test_options_that_ask_for_a_gpu(options: LoadOptions, expected: bool) -> None:
    assert options.asks_for_gpu is expected
