"""``secondsight lab build``: a small kernel from source, with patches or without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondsight.cli.lab_options import say


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command("build")(build_command)


def build_command(
    source: Annotated[
        str,
        typer.Option(
            help="Debian's source package (linux-source-7.3, or linux-source-7.3=VERSION), or a folder with a kernel's source."
        ),
    ],
    patch: Annotated[
        list[Path] | None, typer.Option(help="A patch to apply to it (patch -p1); several in their order.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="What it is called afterwards (default: 7.3+lab, 7.3+PATCH)."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Compilers at a time (default: one a CPU).")] = None,
) -> None:
    """Build a kernel that is just large enough for the lab into the user's cache, from Debian's source package or a tree of yours.

    The objects are kept: an interrupted build goes on where it stopped, and another patch costs what it changes. What was built is there at
    once when it is asked for again. `--kernel NAME` and `lab diff A NAME` take it.
    """
    from secondsight.lab.build import build

    kernel = build(source, patch or [], name=name, jobs=jobs, say=say)
    print(f"{kernel.name}: {kernel.version} ({kernel.release})")
