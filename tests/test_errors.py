"""The errors that a user can meet: the exit code of each, and what is told."""

import pytest

from secondsight import cli
from secondsight.errors import InputError, MissingDependency, SecondSightError, TargetGone, UsageError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SecondSightError("it failed"), 1),
        (MissingDependency("no perf here"), 1),
        (TargetGone("process 3 has exited"), 1),
        (UsageError("--top 0: one at least"), 2),
        (InputError("t.toml", "line 3", "no such verb"), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_is_one_line_and_its_exit_code(error, code, monkeypatch, capsys):
    def run(words):
        raise error

    monkeypatch.setattr("secondsight.cli.group.run", run)
    with pytest.raises(SystemExit) as end:
        cli.main(["rules"])
    assert (end.value.code, capsys.readouterr().err) == (code, f"secondsight: {error}\n")


def test_wrong_input_names_file_and_place():
    told = InputError("t.toml", "steps[2].pages", "a page below 512")
    assert str(told) == "t.toml: steps[2].pages: a page below 512"
    assert (told.source, told.where, told.problem) == ("t.toml", "steps[2].pages", "a page below 512")
    assert str(InputError("t.toml", "", "is empty")) == "t.toml: is empty"


def test_a_name_with_a_line_end_is_still_one_line():
    assert SecondSightError("a\nb").lines() == ["a\nb"], "one, whatever is in it: who prints it escapes"
