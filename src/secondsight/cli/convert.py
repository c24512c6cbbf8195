"""``secondsight convert``: lackey, perf, DynamoRIO and damo text to a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondsight.terminal import markup
from secondsight.words import several

app = typer.Typer(help="Convert lackey, perf, DynamoRIO or damo records to a trace.")


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="The file to convert, or - for standard input; .gz, .xz and .zst too.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")],
    format: Annotated[
        str | None,
        typer.Option("--format", help="lackey, damo, damo-perf, drmemtrace or perf; else told by content."),
    ] = None,
    quantum: Annotated[
        int, typer.Option(min=0, max=(1 << 63) - 1, help="ns to aggregate over, by page and kind; 0: exact.")
    ] = 0,
    compact: Annotated[
        bool, typer.Option("--compact", help="Smaller and slower to read: for shipping.")
    ] = False,
) -> None:
    """Convert a file of accesses to a trace, in bounded memory; damage is named by line and byte and writes nothing."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from secondsight import output as output_file
    from secondsight.trace.convert import convert as run

    output_file.ready(output, source)
    console = Console(stderr=True)
    start = time.monotonic()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("convert", total=None)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        provenance, events = run(
            source,
            output,
            format=format,
            quantum=quantum,
            profile="compact" if compact else "fast",
            progress=progress,
        )
    seconds = max(time.monotonic() - start, 1e-9)
    console.print(
        f"{markup(output)}: {several(events, 'access', 'accesses')} from {markup(provenance.source)} in {seconds:.1f} s "
        f"({events / seconds / 1e6:.2f} M/s), {output.stat().st_size / 1e6:.2f} MB",
        highlight=False,
    )
    for reason, number in provenance.dropped.items():
        console.print(f"left out: {number:,} {markup(reason)}", highlight=False)
    if provenance.clock_held:
        console.print(
            f"clock ran backwards: {several(provenance.clock_held, 'row')} held at the latest time",
            highlight=False,
        )
