"""``secondsight snapshot``: capture what explain needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Capture what explain needs, to be judged later without privilege.")


@app.command()
def snapshot(
    pid: Annotated[int, typer.Option(help="The process.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write (.npz).")],
    within: Annotated[
        str | None, typer.Option("--range", help="Only these addresses: START-END in hexadecimal.")
    ] = None,
    kernel_memory: Annotated[
        bool | None,
        typer.Option(
            "--kernel-memory/--procfs",
            help="Insist on kernel memory, or do without (default: if it can be read).",
        ),
    ] = None,
    vmcore: Annotated[Path | None, typer.Option(help="The process is in this crash dump.")] = None,
    qmp: Annotated[
        Path | None, typer.Option(help="The process is in the guest behind this QMP socket of QEMU.")
    ] = None,
) -> None:
    """Capture a process: mappings, page tables, page flags, and every channel that can be read. No kernel pointer is kept."""
    from secondsight.cli import import_numpy
    from secondsight.cli.explained import take

    import_numpy()
    from secondsight.live import capture

    taken = take(pid, within, kernel_memory, vmcore, qmp)
    capture.save(taken, output)
    count = len(taken.columns.address)
    print(
        f"{output}: {count} blocks of {taken.header.name} ({pid}) from {taken.header.source} in {taken.header.seconds:.2f} s"
    )
    if taken.header.missing:
        print(f"  channels that only kernel memory shows are unknown: {taken.header.missing}")
