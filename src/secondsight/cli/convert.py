"""``secondsight convert``: what simulators, tracers and monitors wrote to a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondsight.plural import file_size, pluralize

app = typer.Typer()


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="The file to convert, or - for standard input; .gz, .xz and .zst too.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="lackey, damo, damo-perf, damo-raw, drmemtrace, perf, pinatrace, champsim, csv, parquet or arrow; else by content.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="MAPPING",
            help="Of a table: time=NAME[:us],address=NAME[:hex|page|hexpage],kind=NAME[:R/W],count=NAME,space=NAME; else guessed by names.",
        ),
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

    from secondsight import atomicfile as output_file
    from secondsight.trace.read.column_mapping import parse
    from secondsight.trace.read.convert import convert as run

    mapping = parse(columns) if columns is not None else None
    output_file.check_writable(output, source)
    console = Console(stderr=True)
    start = time.monotonic()
    parts = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*parts, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("convert", total=None)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        provenance, accesses, rows = run(
            source,
            output,
            format=format,
            quantum=quantum,
            profile="compact" if compact else "fast",
            columns=mapping,
            progress=progress,
            say=lambda line: bar.console.print(
                f"columns: {line}", highlight=False, soft_wrap=True, markup=False
            ),
        )
    seconds = max(time.monotonic() - start, 1e-9)
    in_rows = "" if rows == accesses else f" in {pluralize(rows, 'row')}"
    console.print(
        f"{output}: {pluralize(accesses, 'access', 'accesses')}{in_rows} from {provenance.source} in {seconds:.1f} s "
        f"({rows / seconds / 1e6:.2f} M rows/s), {file_size(output.stat().st_size)}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    for reason, number in provenance.dropped.items():
        console.print(f"left out: {number:,} {reason}", highlight=False, soft_wrap=True)
    for note in provenance.notes:
        if not note.startswith("columns: "):
            console.print(note, highlight=False, soft_wrap=True, markup=False)
    if provenance.clock_held:
        console.print(
            f"clock ran backwards: {pluralize(provenance.clock_held, 'row')} held at the latest time",
            highlight=False,
            soft_wrap=True,
        )
