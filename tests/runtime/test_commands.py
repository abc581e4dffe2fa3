"""What all command lines share: errors as one sentence, and options that take several values."""

import pytest

from salience.runtime import BundleError
from salience.runtime.commands import repeat_flags, report_errors

FLAGS = frozenset({"--data", "-d"})


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("", ""),
        ("--data A", "--data A"),
        ("--data A B C", "--data A --data B --data C"),
        ("--data A --data B", "--data A --data B"),
        ("--data A A", "--data A --data A"),
        ("--data A B --size 64 96", "--data A --data B --size 64 96"),
        ("--size 64 --data A B", "--size 64 --data A --data B"),
        ("-d A B --data C D", "-d A -d B --data C --data D"),
        ("multis --quick --data A B -v", "multis --quick --data A --data B -v"),
        ("--data", "--data"),
        ("--data --size 64", "--data --size 64"),
        ("--data=A B", "--data=A B"),
        ("--other A B", "--other A B"),
    ],
)
def test_values_after_a_flag_repeat_it(typed: str, read: str) -> None:
    arguments = typed.split()
    assert repeat_flags(arguments, FLAGS) == read.split()
    assert arguments == typed.split()


def test_values_with_spaces_stay_whole() -> None:
    assert repeat_flags(["--data", "a b", "c d"], FLAGS) == ["--data", "a b", "--data", "c d"]


@pytest.mark.parametrize(
    ("raised", "printed"),
    [
        (BundleError("bundle x: is damaged."), "error: bundle x: is damaged.\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "error: a.txt: No such file or directory.\n"),
        (IsADirectoryError(21, "Is a directory", ".a-1", None, "a"), "error: a: Is a directory.\n"),
        (OSError("cannot open"), "error: cannot open.\n"),
    ],
)
def test_error_is_one_sentence_and_exit_code_1(
    raised: Exception, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @report_errors
    def command() -> None:
        raise raised

    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", printed)


@pytest.mark.parametrize("raised", [KeyError("a bug"), BrokenPipeError(32, "Broken pipe"), KeyboardInterrupt()])
def test_bugs_and_interrupts_are_not_hidden(raised: BaseException) -> None:
    @report_errors
    def command() -> None:
        raise raised

    with pytest.raises(type(raised)):
        command()


def test_result_and_name_pass_through() -> None:
    @report_errors
    def double(number: int, *, times: int = 2) -> int:
        """Twice, or more."""
        return number * times

    assert double(3, times=4) == 12
    assert (double.__name__, double.__doc__) == ("double", "Twice, or more.")
