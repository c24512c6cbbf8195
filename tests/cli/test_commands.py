"""What ``--help`` shows: every command once, by task; each with an example that the command can read."""

import inspect
import re
import subprocess
import sys

import pytest
import typer

from secondsight.cli import group, main
from secondsight.cli.commands import COMMANDS, EXAMPLES, TASKS, overview
from support import command_lines


def leaves(command, path=""):
    for name in command.list_commands(None):
        inner = command.get_command(None, name)
        if hasattr(inner, "list_commands"):
            yield from leaves(inner, f"{path}{name} ")
        else:
            yield f"{path}{name}", inner


LEAVES = dict(leaves(typer.main.get_command(group.app)))
GROUPS = {path.split()[0] for path in LEAVES if " " in path}


def test_every_command_stands_in_one_task():
    assert sum(len(entries) for entries in TASKS.values()) == len(COMMANDS)


def test_every_command_has_an_example():
    assert set(EXAMPLES) == set(LEAVES) | GROUPS


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_is_one_of_its_command_and_can_be_read(path):
    line = EXAMPLES[path].removeprefix("sudo ")
    assert line.startswith(f"secondsight {path}")
    command_lines.read(command_lines.words_of(line.removeprefix("secondsight ")))


@pytest.mark.parametrize("path", ["explain", "lab compare", *sorted(GROUPS)])
def test_help_begins_with_the_example(path, capsys):
    with pytest.raises(SystemExit) as end:
        main([*path.split(), "--help"])
    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert end.value.code == 0 and shown[1] == EXAMPLES[path]


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_a_groups_help_says_what_it_and_each_command_in_it_does(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert COMMANDS[name].line in shown
    for path, command in LEAVES.items():
        if path.startswith(f"{name} "):
            said = inspect.getdoc(command.callback).splitlines()[0]
            assert f" {path.split()[1]} {said}" in shown and said[-1] in ".?", path


def test_the_overview_imports_no_command_and_nothing_slow():
    slow = ("typer", "click", "rich", "numpy", "numba", "msgspec", "pyarrow", "secondsight.cli.group")
    code = (
        "import sys; from secondsight.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print([name for name in {slow} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, imported = done.stdout.splitlines()
    assert shown == overview().splitlines() and imported == "[]"


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_the_overview_shows_all(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS) and all(f"\n{task}:\n" in shown for task in TASKS)
    assert max(map(len, shown.splitlines())) <= 100
