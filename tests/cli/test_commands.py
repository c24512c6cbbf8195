"""What ``--help`` shows: every command once, by task; each with an example that the command can read."""

import pytest
import typer

from secondsight.cli import group, main
from secondsight.cli.commands import COMMANDS, EXAMPLES, TASKS
from support import command_lines


def leaves(command, path=""):
    for name in command.list_commands(None):
        inner = command.get_command(None, name)
        if hasattr(inner, "list_commands"):
            yield from leaves(inner, f"{path}{name} ")
        else:
            yield f"{path}{name}", inner


LEAVES = dict(leaves(typer.main.get_command(group.app)))


def test_every_command_stands_in_one_task():
    assert sum(len(entries) for entries in TASKS.values()) == len(COMMANDS)


def test_every_command_has_an_example():
    assert set(EXAMPLES) == set(LEAVES)


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_is_one_of_its_command_and_can_be_read(path):
    line = EXAMPLES[path].removeprefix("sudo ")
    assert line.startswith(f"secondsight {path}")
    command_lines.read(command_lines.words_of(line.removeprefix("secondsight ")))


@pytest.mark.parametrize("path", ["explain", "lab compare"])
def test_help_begins_with_the_example(path, capsys):
    with pytest.raises(SystemExit) as end:
        main([*path.split(), "--help"])
    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert end.value.code == 0 and shown[1] == EXAMPLES[path]


def test_the_overview_shows_all(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS) and all(f"\n{task}:\n" in shown for task in TASKS)
    assert max(map(len, shown.splitlines())) <= 100
