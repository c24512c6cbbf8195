"""What the verbs of ``secondsight lab`` share: the kernel and the machine that are asked, and how progress is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

KernelOption = Annotated[
    str, typer.Option("--kernel", "-k", help="A name that `lab kernels` lists, a pin, or a path.")
]
MmuOption = Annotated[
    str,
    typer.Option(
        "--mmu", "-m", help="The machine: which secondary MMU KVM has, and how many processors there are."
    ),
]
ModulesOption = Annotated[Path | None, typer.Option(help="The module tree of a kernel given by its path.")]


def say(text: str) -> None:
    """One line of progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
