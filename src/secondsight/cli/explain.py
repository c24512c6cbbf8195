"""``secondsight explain``: why khugepaged will or will not collapse each block. What it does is in ``explained.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondsight.cli import explained
from secondsight.cli.options import KernelMemoryOption, QmpOption, RangeOption, VmcoreOption

app = typer.Typer(help="Why khugepaged will or will not collapse each block of a process.")


def _share(word: str) -> float:
    try:
        return explained.share(word)
    except ValueError:
        raise typer.BadParameter(f"{word}: write a share such as 95%") from None


@app.command()
def explain(
    file: Annotated[
        Path | None, typer.Argument(help="A snapshot; or name a running process with --pid.")
    ] = None,
    pid: Annotated[int | None, typer.Option(help="A running process.")] = None,
    within: RangeOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every block, not only the notable ones.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page as well.")] = None,
    kernel_memory: KernelMemoryOption = None,
    vmcore: VmcoreOption = None,
    qmp: QmpOption = None,
    supposed: Annotated[
        list[str] | None,
        typer.Option("--if", help="Judge as if a switch or limit were so: enabled=always; repeatable."),
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=_share,
            help="Exit code 1 where less of the guest RAM (else of eligible memory) is huge: 95%.",
        ),
    ] = None,
) -> None:
    """Totals first, then block by block: how it is mapped, which channel calls it used, and what khugepaged will answer and why."""
    explained.explain(
        file, pid, within, everything, json, report, kernel_memory, vmcore, qmp, supposed, fail_under
    )
