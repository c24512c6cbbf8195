"""``secondsight export``: the host as metrics for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def export(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write to this file, whole or not at all. [default: standard output]"
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="What a row is: cgroup, container, vm, user, name or process.")
    ] = "cgroup",
    most: Annotated[
        int, typer.Option("--top", help="Rows with series of their own; all others are one.", min=0, max=1000)
    ] = 50,
    switches: Annotated[
        list[str] | None,
        typer.Option("--if", help="Also under this switch, NAME=VALUE as in top; may be repeated."),
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds of CPU time for the pass.", min=0.0)] = 1.0,
    sums: Annotated[
        bool, typer.Option("--sums", help="Only what needs no look at blocks; much cheaper.")
    ] = False,
) -> None:
    """One pass as gauges in the OpenMetrics text format: `--output /var/lib/prometheus/node-exporter/secondsight.prom`, by a timer.

    What the pass took is among them (secondsight_pass_cpu_seconds). Where it cannot be written, the last whole file stays.
    """
    from secondsight import atomicfile as files
    from secondsight.cli import import_numpy

    files.check_writable(output, kind=files.starting("metrics", b"# HELP", b"# TYPE", b"# UNIT", b"# EOF"))
    import_numpy()
    from secondsight.cli.top import looker
    from secondsight.host.metrics import openmetrics

    text = openmetrics(looker(by, switches, budget, not sums, None, False)(), most)
    if output is None:
        print(text.decode(), end="")
        return
    with files.open_atomic(output) as part:
        part.write_bytes(text)
