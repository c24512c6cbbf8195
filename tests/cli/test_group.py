"""How command lines are read: a module imported when its command is asked for, one line for what cannot be read."""

import subprocess
import sys

import pytest
import typer

from secondsight import __version__
from secondsight.cli import group
from secondsight.cli.commands import COMMANDS, EXAMPLES
from support.commands import in_process, printed, refused

COMMAND = typer.main.get_command(group.app)


def test_every_command_is_there_and_no_other():
    assert COMMAND.list_commands(None) == list(COMMANDS)
    assert all(COMMAND.get_command(None, name).name == name for name in COMMANDS)
    assert COMMAND.get_command(None, "nonesuch") is None


def test_a_command_imports_its_own_module_alone():
    code = (
        "import sys; from secondsight.cli import group; group.run(['rules'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('secondsight.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(
        [
            f"secondsight.cli.{name}"
            for name in ("commands", "completion", "group", "options", "plain", "rules")
        ]
    )


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("explain", "--nonesuch"), "secondsight explain: No such option: --nonesuch"),
        (("explain", "--pid", "one"), "secondsight explain: Invalid value for '--pid'"),
        (("explain", "--pid"), "secondsight explain: Option '--pid' requires an argument"),
        (("lab", "run", "x.toml", "--kernel"), "secondsight lab run: Option '--kernel' requires an argument"),
        (("nonesuch",), "secondsight: No such command 'nonesuch'"),
        (("lab", "fetch", "--nonesuch"), "secondsight lab fetch: No such option: --nonesuch"),
        (("rules", "--json", "--json"), "secondsight rules: --json is given more than once"),
        (
            ("lab", "run", "x", "-k", "6.1", "--kernel", "6.1"),
            "secondsight lab run: --kernel/-k is given more",
        ),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(argv, says, capsys):
    message = refused(capsys, *argv)
    assert message.startswith(says) and "--help" in message


@pytest.mark.parametrize("name", ["explain", "record", "lab"])
def test_help_begins_with_an_example_and_the_first_line_stands_for_all_in_lists(name):
    command = COMMAND.get_command(None, name)
    assert command.help.startswith(f"\b\n{EXAMPLES[name]}\n\n")
    for inner in getattr(command, "commands", {}).values():
        assert inner.short_help == inner.help.split("\n\n")[1].splitlines()[0]


def test_its_version_and_a_group_without_a_command(capsys):
    assert printed(capsys, "--version").strip().endswith(__version__)
    code, out, err = in_process(capsys, "trace")
    assert code == 2 and "Usage: secondsight trace" in out + err
