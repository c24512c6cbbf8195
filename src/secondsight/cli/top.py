"""``secondsight top``: the whole host, a row a process, VM, cgroup, container, user or name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from secondsight.cli.options import KernelMemoryOption, seconds_of
from secondsight.terminal import printable
from secondsight.terminal import width as terminal_width

if TYPE_CHECKING:
    from collections.abc import Callable

    from secondsight.host.rows import HostRow
    from secondsight.host.survey import HostView

#: seconds of CPU time that a pass may be given: a day
_LONGEST_PASS = 86_400

app = typer.Typer()


class Shown(NamedTuple):
    """Which rows and columns, in which order."""

    by: str
    names: tuple[str, ...]
    sort: str | None
    filters: tuple[str, ...]
    most: int | None

    def rows(self, view: HostView) -> list[HostRow]:
        """The rows of *view* that are wanted, in their order."""
        from secondsight.host import columns

        rows = columns.order(columns.keep(view.rows, self.filters), self.sort)
        return rows if self.most is None else rows[: self.most]


@app.command()
def top(
    by: Annotated[
        str, typer.Option(help="What a row is: process, vm, cgroup, container, user or name.")
    ] = "process",
    switches: Annotated[
        list[str] | None,
        typer.Option(
            "--if",
            help="Also under this switch: enabled, shmem_enabled or max_ptes_none=VALUE; may be repeated.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns, parted by commas; +NAME adds one to those that are shown anyway."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Column to sort by, largest first; -NAME the other way about. [default: gain]"),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="Only rows such as resident>1G, share<50%, name~redis; may be repeated."
        ),
    ] = None,
    most: Annotated[int | None, typer.Option("--top", help="At most so many rows.", min=1)] = None,
    pids: Annotated[
        list[int] | None, typer.Option("--pid", help="Only this process; may be repeated.")
    ] = None,
    budget: Annotated[
        float, typer.Option(help="Seconds of CPU time for a pass; what does not fit is sampled.", min=0.0)
    ] = 2.0,
    full: Annotated[bool, typer.Option("--full", help="Read every block, however long it takes.")] = False,
    interval: Annotated[
        float,
        typer.Option(help="Seconds between passes of the live view and of --record.", min=0.2, max=86400.0),
    ] = 5.0,
    once: Annotated[
        bool, typer.Option("--once", help="One pass, on a terminal and with --record too.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The whole pass as one JSON object.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="The rows as CSV.")] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Keep the rows of each pass in this Parquet file until an interrupt; `secondsight report` makes a page of it."
        ),
    ] = None,
    append: Annotated[
        bool,
        typer.Option(
            "--append",
            help="Go on with the recording that --record names, as after a restart. Without, a file that is there is refused: nobody can "
            "record a past again.",
        ),
    ] = False,
    mark: Annotated[
        str | None,
        typer.Option(
            help="Say what happens at this moment in the --record under way (or SIGUSR1 to it, without words)."
        ),
    ] = None,
    during: Annotated[
        str | None, typer.Option("--for", help="End a --record after this long, such as 10min.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="What each column means, and nothing else.")
    ] = False,
    kernel_memory: KernelMemoryOption = False,
) -> None:
    """Whose memory is huge, whose could be, what that would add, and what keeps the rest small; read-only.

    Processes are read through sums and PAGEMAP_SCAN; what takes a page's word is sampled within the budget, and shown with its bounds.
    Without root: one's own processes; the others are counted.
    """
    from secondsight.cli import import_numpy
    from secondsight.errors import MissingDependency, UsageError

    import_numpy()
    from secondsight.host import columns as defined
    from secondsight.host import printing, tasks
    from secondsight.host.rows import KINDS

    if by not in KINDS:
        raise UsageError(f"--by {by}: is one of {', '.join(KINDS)}")
    shown = Shown(by, defined.chosen(columns, by), sort, tuple(filters or ()), most)
    if explain:
        print("\n".join(printing.definitions(shown.names if columns else tuple(defined.COLUMNS))))
        return
    if json and csv:
        raise UsageError("--json and --csv: choose one")
    seconds = seconds_of(during)
    if record is None and (append or seconds is not None):
        word, does = ("--append", "goes on with") if append else ("--for", "ends")
        raise UsageError(f"{word}: {does} a recording; name it by --record FILE")
    if record is not None and (json or csv):
        raise UsageError("--record: keeps the rows and prints none; --json and --csv go without it")
    _check_there(pids)
    if mark is not None:
        _mark(record, mark)
        return
    # Whatever is wrong with them is said before a pass.
    defined.order([], sort)
    defined.keep([], shown.filters)
    asked = [
        *shown.names,
        *(defined.filtered(each) for each in shown.filters),
        *([sort.removeprefix("-")] if sort else []),
    ]
    # JSON has every column, unless some are named.
    blocks = (json and columns is None) or any(defined.COLUMNS[name].blocks for name in asked)
    look = looker(by, switches, None if full else budget, blocks, pids, kernel_memory)
    if record is not None:
        _record(look, shown, record, interval, 0.0 if once else seconds, append=append)
        return
    if json or csv or once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        view = look()
        if pids and not view.rows:
            why = f": left out: {printing.left_out(view.trouble)}" if view.trouble else ""
            # As where explain and record may not read it.
            error = MissingDependency if tasks.UNREADABLE in view.trouble else UsageError
            raise error(f"--pid {' '.join(map(str, pids))}: no process with memory that can be read{why}")
        _print(view, shown, json=json, csv=csv)
        return
    try:
        from secondsight.cli import topview
    except ImportError:
        print("the live view needs textual (pip install 'secondsight[top]'); one pass:", file=sys.stderr)
        _print(look(), shown, json=False, csv=False)
        return
    topview.run(look, shown, interval)


def _check_there(pids: list[int] | None) -> None:
    """Refuse numbers that no process can have; one of them at least must be there: others may have ended since they were listed."""
    import os

    from secondsight.errors import UsageError

    for pid in pids or ():
        if pid < 1:
            raise UsageError(f"--pid {pid}: a process number is positive")
    if pids and not any(os.path.exists(f"/proc/{pid}") for pid in pids):  # noqa: PTH110 - a number may be too long for a path's stat
        raise UsageError(
            f"--pid {' '.join(map(str, pids))}: there is no such process"
            if len(pids) == 1
            else f"--pid: none of the {len(pids)} processes is there"
        )


def looker(
    by: str, switches: list[str] | None, budget: float | None, blocks: bool, pids: list[int] | None,
    kernel_memory: bool | None,
) -> Callable[[], HostView]:  # fmt: skip
    """What makes a pass, with *switches* as ``--if`` has them; whatever is wrong with these, or the *budget*, is said at once.

    :raises UsageError: not NAME=VALUE; no number of seconds, or too many.
    """
    from secondsight.errors import UsageError
    from secondsight.host.survey import host

    if budget is not None and not 0 <= budget <= _LONGEST_PASS:
        raise UsageError(f"--budget {budget:g}: write seconds of CPU time, at most {_LONGEST_PASS:,}")
    changed = None
    if switches is not None:
        parts = [each.partition("=") for each in switches]
        if wrong := [name for name, sign, _ in parts if not sign]:
            raise UsageError(f"--if {wrong[0]}: write NAME=VALUE, such as enabled=always")
        changed = {name: value for name, _, value in parts}
    return lambda: host(
        by, switches=changed, budget=budget, blocks=blocks, pids=pids, kernel_memory=kernel_memory
    )


def _mark(record: Path | None, text: str) -> None:
    from secondsight.errors import UsageError
    from secondsight.host import marks

    if record is None:
        raise UsageError(
            "--mark: of which recording? add --record FILE, which another `secondsight top` is making"
        )
    marks.add(record, text)
    print(f"marked in {printable(record)}: {printable(text)}")


def _record(
    look: Callable[[], HostView],
    shown: Shown,
    path: Path,
    interval: float,
    seconds: float | None,
    *,
    append: bool,
) -> None:
    """Passes into *path*, one every *interval* seconds, until an interrupt or for so many *seconds*."""
    import signal
    import time

    from secondsight.errors import UsageError
    from secondsight.host.history import HostRecording
    from secondsight.live.act.stopping import Stopping
    from secondsight.plural import pluralize

    if path.is_file() and not append:
        raise UsageError(f"{path}: is there already; --append goes on with it, or give another name")
    recording = HostRecording(path, append=append)
    if recording.by not in ("", shown.by):
        recording.close()
        raise UsageError(
            f"--append: a row of {path} is a {recording.by}; go on with it by --by {recording.by}"
        )
    before = signal.signal(signal.SIGUSR1, lambda *_: recording.mark())
    began, count = time.monotonic(), 0
    try:
        with Stopping() as stopping:
            while True:
                due = time.monotonic() + interval
                view = look()
                recording.add(view, shown.rows(view))
                count += 1
                over = seconds is not None and due - began >= seconds
                if over or stopping.wait(due - time.monotonic()):
                    break
    finally:
        signal.signal(signal.SIGUSR1, before)
        if not count:
            recording.discard()
        recording.close()
    print(f"{pluralize(count, 'pass', 'passes')} in {path}, {pluralize(len(recording.marks), 'mark')}")


def _print(view: HostView, shown: Shown, *, json: bool, csv: bool) -> None:
    from secondsight.host import printing

    rows = shown.rows(view)
    if json:
        print(printing.to_json(view, rows))
        return
    if csv:
        # On a terminal people read it: names keep their control characters for programs alone.
        text = printing.to_csv(rows, shown.names, escaped=sys.stdout.isatty())
        print(text, end="")
        return
    width = terminal_width()
    if width is not None:
        shown = shown._replace(names=printing.sorted_first(shown.names, shown.sort))
    body = [*printing.head(view, len(rows), width, shown.names), ""]
    table = list(rows)
    if view.total is not None and len(view.rows) > 1:
        table.append(view.total)
    print("\n".join([*body, *printing.lines(table, shown.names, width)]))


__all__ = ["Path", "app"]
