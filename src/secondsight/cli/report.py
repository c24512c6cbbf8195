"""``secondsight report``: one page of a recording of the host."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from secondsight.terminal import printable

app = typer.Typer()


@app.command()
def report(
    recording: Annotated[Path, typer.Argument(help="What `secondsight top --record` wrote, or is writing.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page. [default: beside the recording, as .html]"),
    ] = None,
    most: Annotated[
        int, typer.Option("--top", help="Rows of the page: those that grew or shrank most.", min=1, max=500)
    ] = 50,
) -> None:
    """Who grew, who was refused, and what changed at a marked moment, as one HTML page that needs no network."""
    from secondsight import atomicfile as files
    from secondsight.cli import import_numpy

    import_numpy()
    if output is not None:
        files.check_writable(output, recording, kind=files.PAGE)
    check(recording)
    page = output if output is not None else recording.with_suffix(".html")
    files.check_writable(page, recording, kind=files.PAGE)
    from secondsight.host.recorded import history
    from secondsight.report import host_page

    recorded = history(recording, most, shlex.join(["secondsight", *sys.argv[1:]]))
    size = host_page.write(recorded, page)
    print(f"{printable(host_page.answer(recorded))}\n{printable(page)}: {size / 1000:,.0f} kB")


def check(path: Path) -> None:
    """Tell other files of ours apart, each with the command that is for it.

    :raises InputError: *path* cannot be read, or is no recording of the host.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from secondsight.errors import InputError
    from secondsight.wholefile import open_input

    if path.is_dir():
        raise InputError(
            str(path), "", f"is a directory; a sweep's: `secondsight compare {path} --report PAGE.html`"
        )
    with open_input(path, "a recording") as file:
        start = file.read(4)
    if start[:1] in (b"{", b"["):
        raise InputError(
            str(path),
            "",
            f"is JSON; results of a comparison: `secondsight compare {path} --report PAGE.html`",
        )
    if start != b"PAR1":
        raise InputError(str(path), "", "no recording of the host; `secondsight top --record FILE` makes one")
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            str(path), "", f"torn, or no recording of the host: {str(error).splitlines()[0]}"
        ) from None
    kind = metadata.get(b"secondsight.kind", b"").decode("utf-8", "replace")
    if kind == "khugepaged-decisions":
        raise InputError(
            str(path), "", "is what `secondsight watch --record` wrote; a page is made of `top --record`"
        )
    if b"secondsight.trace" in metadata:
        raise InputError(
            str(path), "", f"is a trace: `secondsight compare {path} --report PAGE.html` makes a page of it"
        )
    if b"secondsight.results" in metadata:
        raise InputError(
            str(path), "", "is a table of a comparison's results; `compare --report` makes their page"
        )
    if kind != "secondsight.host":
        raise InputError(str(path), "", "no recording of the host; `secondsight top --record FILE` makes one")
