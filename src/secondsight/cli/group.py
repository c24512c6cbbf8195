"""The commands, as Typer reads their command lines.

Each command lives in a module of its own beside this one and is imported only when it is called, so that
``secondsight --help`` answers at once. A command's module holds a ``typer.Typer`` called ``app``.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from secondsight.cli.commands import COMMANDS, EXAMPLES, overview
from secondsight.cli.completion import VARIABLE, answer
from secondsight.terminal import printable

#: Typer brings its own copy of click in some versions: the class of whichever is in use.
_UsageError: Any = typer.BadParameter.__mro__[1]


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, by task."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module behind *cmd_name* and return its command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"secondsight.cli.{COMMANDS[cmd_name].module}")
        module.app._add_completion = False  # options of Typer's that no command here means to have
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        # A group has no function whose docstring is its help.
        command.help = command.help or COMMANDS[cmd_name].line
        _begin_with_examples(command, cmd_name)
        _take_options_once(command)
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The overview, written without importing any command."""
        print(overview())


def _begin_with_examples(command: Any, path: str) -> None:
    """Let the help of *command*, and of each command in it, begin with its example; the list that it stands in shows its first line."""
    for name, each in getattr(command, "commands", {}).items():
        _begin_with_examples(each, f"{path} {name}")
    command.short_help = (command.help or "").partition("\n")[0]
    command.help = f"\b\n{EXAMPLES[path]}\n\n{command.help or ''}"


def _take_options_once(command: Any) -> None:
    """Let *command*, and each command in it, refuse an option that stands twice and can say one thing alone: click takes the last."""
    for each in getattr(command, "commands", {}).values():
        _take_options_once(each)
    make = command.make_parser

    def make_parser(ctx: Any) -> Any:
        parser = make(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            options, rest, order = parse(args)
            for at, param in enumerate(order):
                if param in order[:at] and not (param.multiple or param.count):
                    words = "/".join([*param.opts, *param.secondary_opts])
                    raise _UsageError(f"{words} is given more than once; it says one thing alone", ctx)
            return options, rest, order

        parser.parse_args = parse_args
        return parser

    command.make_parser = make_parser


app = typer.Typer(
    cls=LazyGroup, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.callback(invoke_without_command=True, no_args_is_help=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from secondsight import __version__

        print(f"secondsight {__version__}")
        raise typer.Exit


def _path(command: Any, words: list[str]) -> str:
    """The command that *words* name, as far as they do: an option without its value comes without its context."""
    named = ["secondsight"]
    for word in words:
        if word.startswith("-"):
            continue
        inner = command.get_command(None, word) if hasattr(command, "get_command") else None
        if inner is None:
            break
        command = inner
        named.append(word)
    return " ".join(named)


def run(words: list[str]) -> None:
    """Run the command that *words* name; a command line that cannot be read is one line and its exit code."""
    command = typer.main.get_command(app)
    if VARIABLE in os.environ:
        answer(command)
    try:
        # Not app(): that draws a box around a wrong option, and calls a pipe that was closed a failure.
        with command.make_context("secondsight", words) as context:
            command.invoke(context)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            path = error.ctx.command_path if error.ctx else _path(command, words)
            print(
                f"{path}: {printable(' '.join(error.format_message().split()))} ({path} --help)",
                file=sys.stderr,
            )
        sys.exit(error.exit_code)
