"""``secondsight explain``: why khugepaged will or will not collapse each block, as Typer reads it. All of it is in ``explained.py``."""

from __future__ import annotations

import typer

from secondsight.cli import explained
from secondsight.cli.options import command_of

app = typer.Typer()
app.command(name="explain")(command_of(explained.explain, explained.OPTIONS))
