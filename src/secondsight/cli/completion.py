"""``secondsight completion``: what a shell needs to complete our command lines."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

#: What Typer's scripts set when the shell wants to know, and what says how.
VARIABLE = "_SECONDSIGHT_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

app = typer.Typer()


@app.command()
def completion(shell: Annotated[str, typer.Argument(help=f"{', '.join(SHELLS)}.")] = "bash") -> None:
    """Print the script that makes a shell complete commands, options and files; write it where that shell looks for such scripts."""
    from secondsight.cli.group import app as whole
    from secondsight.errors import UsageError

    if shell not in SHELLS:
        raise UsageError(f"completion {shell}: one of {', '.join(SHELLS)}")
    answer(typer.main.get_command(whole), f"source_{shell}")


def answer(command: Any, instruction: str | None = None) -> None:
    """Answer a shell that asks through :data:`VARIABLE` (or *instruction* instead), and exit; nothing where none asks."""
    asked = os.environ.get(VARIABLE)
    if not (instruction or asked):
        return
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    os.environ[VARIABLE] = instruction or str(asked)
    try:
        # What Typer itself does first in main(), which group.run() does without.
        command._main_shell_completion({}, "secondsight", VARIABLE)
    finally:
        if asked is None:
            del os.environ[VARIABLE]
    sys.exit(0)
