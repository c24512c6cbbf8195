"""The commands, as Typer reads their command lines.

Each command lives in a module of its own beside this one and is imported only when it is called, so that
``secondsight --help`` answers at once. A command's module holds a ``typer.Typer`` called ``app``.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from secondsight.terminal import printable

# name -> (module under secondsight.cli, one line for --help)
COMMANDS: dict[str, tuple[str, str]] = {
    "scenario": ("scenario", "Run a scenario on the model and print what khugepaged would say."),
    "rules": ("rules", "List the kernel profiles, what differs between them, and the evidence of each rule."),
    "replay": ("replay", "Replay a trace of accesses through the model, under any number of rules."),
    "record": ("record", "Record the memory accesses of a program, a VM or a running process."),
    "convert": ("convert", "Convert lackey, perf, DynamoRIO or damo records to a trace."),
    "trace": ("trace", "Look into a trace, cut it, recover a torn recording."),
    "compare": ("compare", "Compare policies and rules on one trace: benefit, bloat and cost."),
    "calibrate": (
        "calibrate",
        "Measure what a page walk costs this machine; compare predicts run times with it.",
    ),
    "verify": ("verify", "What a change brought to a running process or cgroup, beside what was predicted."),
    "sweep": ("sweep", "Run many traces, policies, rules and knobs; resumable."),
    "top": ("top", "The whole host: whose memory is huge, could be, and what keeps it small."),
    "host": ("host", "The host's supply of huge pages, its counters as rates, khugepaged's pace."),
    "report": ("report", "A page of a recorded host: who grew, who was refused, what changed when."),
    "export": ("export", "The host as metrics for Prometheus' textfile collector."),
    "doctor": ("doctor", "What this kernel and these permissions let us see and do."),
    "explain": ("explain", "Why khugepaged will or will not collapse each block of a process."),
    "snapshot": ("snapshot", "Capture what explain needs, to be judged later without privilege."),
    "watch": ("watch", "Follow khugepaged's decisions as they happen."),
    "collapse": ("collapse", "Make the hot blocks of a process huge, within a budget."),
    "lab": ("lab", "Boot real kernels, run scenarios in them, compare them with the model."),
}

#: Typer brings its own copy of click in some versions: the class of whichever is in use.
_UsageError: Any = typer.BadParameter.__mro__[1]


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, in the order of the data's way."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module behind *cmd_name* and return its command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"secondsight.cli.{COMMANDS[cmd_name][0]}")
        module.app._add_completion = False  # options of Typer's that no command here means to have
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The overview, written without importing any command."""
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
        print(
            "Usage: secondsight COMMAND [OPTIONS] ...\n\n"
            "Which memory is really in use, through every MMU that maps it, and which deserves a huge page.\n\n"
            "Commands:\n" + "\n".join(lines) + "\n\n"
            "secondsight COMMAND --help explains each; --version prints the version."
        )


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
