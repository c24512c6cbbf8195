"""``secondsight watch``: khugepaged's decisions as they happen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.geometry import PMD_ORDER, kb_of_order
from secondsight.plural import pluralize
from secondsight.terminal import printable

if TYPE_CHECKING:
    from secondsight.live.read.address_spaces import AddressSpaces
    from secondsight.live.read.places import Places
    from secondsight.live.read.tracefs import Instance
    from secondsight.live.watch import TracedDecision, Watcher

#: what a file of --record says that it is
_DECISIONS = "khugepaged-decisions"

app = typer.Typer()

_MOST_PAGES = 64 << 20  # whose places are read: 256 GiB of memory
_TICK = 0.25  # seconds between two reads of the trace buffer


@app.command()
def watch(
    pid: Annotated[
        int | None, typer.Option(help="Only this process; its frames are mapped to addresses.")
    ] = None,
    during: Annotated[
        str | None, typer.Option("--for", help="Stop after this long, such as 60s (else at an interrupt).")
    ] = None,
    refresh: Annotated[
        float,
        typer.Option(
            help="Seconds between two readings of where pages lie (never more than 2 % of the time).", min=0.1
        ),
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    record: Annotated[
        Path | None, typer.Option(help="Write the decisions to this Parquet file as well.")
    ] = None,
) -> None:
    """Print each block khugepaged looks at: where, its answer, why, and the rates at the end.

    Reads a private trace instance, removed on exit; switches nothing that others see. Addresses are given where the page table
    confirms them, else they are unknown. Needs root.
    """
    import contextlib
    import time

    from secondsight.cli.options import seconds_of
    from secondsight.errors import MissingDependency
    from secondsight.live.act.stopping import Stopping
    from secondsight.live.read.largest import largest_processes
    from secondsight.live.read.places import Places
    from secondsight.live.read.process import Process
    from secondsight.live.read.tracefs import Instance
    from secondsight.live.watch import Watcher

    seconds = seconds_of(during)
    process = Process.open(pid) if pid is not None else None
    # Host-wide, the largest processes are those whose memory can be named.
    known = [process] if process is not None else largest_processes()
    try:
        with contextlib.ExitStack() as stack:
            stopping = stack.enter_context(Stopping())
            instance = stack.enter_context(Instance.open())
            places = stack.enter_context(Places(known, max_pages=_MOST_PAGES)) if known else None
            spaces, unnamed = _spaces(instance)
            if spaces is None and places is not None and pid in places.unread:
                raise MissingDependency(
                    f"{places.unread[pid]}; without its pages, or kernel memory, none of khugepaged's decisions can be told to be its own"
                )
            watcher = Watcher(places, only=pid, spaces=spaces)
            sink = DecisionFile(record)
            started = time.monotonic()
            with sink:
                _head(json, instance, process)
                names = {} if spaces is None else spaces.names
                names.update({each.pid: each.name for each in known} if process is None else {})
                _follow(
                    stopping,
                    instance,
                    watcher,
                    places,
                    process,
                    sink,
                    DecisionPrinter(json, names, refresh, unnamed),
                    refresh,
                    seconds,
                )
            _summary(json, watcher, instance, time.monotonic() - started)
            if process is not None:
                process.require_alive()
    finally:
        for each in known:
            each.close()


def _spaces(instance: Instance) -> tuple[AddressSpaces | None, str]:
    """Whose each address space is, through kernel memory; or why that cannot be told."""
    from secondsight.live.read.capture import open_kernel

    kernel, missing = open_kernel(None)
    if kernel is None:
        return None, missing
    if not instance.show_pointers():
        return None, "tracepoints print no pointers before 5.11"
    from secondsight.live.read.address_spaces import AddressSpaces, read_owners

    return AddressSpaces(lambda: read_owners(kernel)), ""


def _follow(
    stopping: Any, instance: Instance, watcher: Watcher, places: Places | None, process: Any, sink: DecisionFile, printer: DecisionPrinter,
    refresh: float, seconds: float | None,
) -> None:  # fmt: skip
    import time

    end = None if seconds is None else time.monotonic() + seconds
    due = time.monotonic() + refresh
    done = False
    while not done:
        left = _TICK if end is None else min(_TICK, end - time.monotonic())
        done = stopping.wait(left) or (end is not None and time.monotonic() >= end)
        if process is not None and not process.alive():
            done = True
        decisions = watcher.take(instance.read())
        if decisions:
            sink.add(decisions)
        printer.take(decisions, done)
        if places is not None and not done and time.monotonic() >= due:
            begun = time.monotonic()
            places.refresh()
            cost = time.monotonic() - begun
            due = time.monotonic() + max(refresh, 50 * cost)


def _head(json: bool, instance: Instance, process: Any) -> None:
    if json:
        return
    whom = f"process {process.pid} ({printable(process.name)})" if process else "every process"
    print(
        f"watching khugepaged on {whom}; events: {', '.join(instance.events)}; interrupt to stop", flush=True
    )


class DecisionPrinter:
    """Prints decisions; those about processes that have no name here become a line now and then."""

    def __init__(self, json: bool, names: dict[int, str], every: float, unnamed: str = "") -> None:
        """*names*: of the processes that can be named, host-wide; *every*: seconds between two such lines; *unnamed*: why the others
        cannot be."""
        import collections
        import time

        self._json, self._names, self._every = json, names, every
        self._why = f"; {unnamed}" if unnamed else ""
        self._unnamed: collections.Counter[str] = collections.Counter()
        self._spaces: set[int] = set()
        self._clock = time.monotonic
        self._due = self._clock() + every

    def take(self, decisions: list[TracedDecision], last: bool) -> None:
        """Print *decisions*; *last*: and what is left."""
        lines = []
        for decision in decisions:
            if not self._json and decision.pid is None and decision.address is None and decision.file is None:
                self._unnamed[decision.status] += 1
                self._spaces.add(decision.mm)
            else:
                lines.append(_line(decision, self._json, self._names))
        if self._unnamed and (last or self._clock() >= self._due):
            counts = ", ".join(
                f"{printable(status)} {count:,}" for status, count in self._unnamed.most_common()
            )
            lines.append(
                f"{pluralize(sum(self._unnamed.values()), 'decision')} about {pluralize(len(self._spaces), 'address space')} "
                f"that cannot be named (one of a large process would be, by its pages{self._why}): {counts}"
            )
            self._unnamed.clear()
            self._spaces.clear()
            self._due = self._clock() + self._every
        if lines:
            print("\n".join(lines), flush=True)


def _line(decision: TracedDecision, json: bool, names: dict[int, str] | None = None) -> str:
    import msgspec

    if json:
        return msgspec.json.encode(decision).decode()
    where = f"{decision.address:#014x}" if decision.address is not None else "address unknown"
    whose = f"pid {decision.pid}" if decision.pid is not None else f"mm {decision.mm}"
    if names and decision.pid in names:
        whose += f" ({printable(names[decision.pid])})"
    by = "" if decision.task == "khugepaged" else f" [by {printable(decision.task)}]"
    stamp = f"{decision.time / 1e9:13.6f}"
    if decision.file is not None:
        numbers = f"{pluralize(decision.present or 0, 'page')} in the page cache, {decision.unmapped} swapped"
        where = f"file {printable(decision.file)} {where}"
        return f"{stamp} {whose} {where}{by}: {printable(decision.status)}: {decision.reason} ({numbers})"
    numbers = f"referenced {decision.referenced}, none {decision.none_or_zero}, swapped {decision.unmapped}"
    second = ""
    if decision.isolate_status is not None:
        second = f"; isolate: {decision.isolate_status}, referenced {decision.isolate_referenced}"
    if len(decision.attempts) > 1 or any(each.order < PMD_ORDER for each in decision.attempts):
        second += f"; tried {printable(decision.attempted)}"
    return f"{stamp} {whose} {where}{by}: {printable(decision.status)}: {decision.reason} ({numbers}{second})"


def _summary(json: bool, watcher: Watcher, instance: Instance, seconds: float) -> None:
    import resource

    import msgspec

    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = usage.ru_utime + usage.ru_stime
    facts = {
        "seconds": round(seconds, 3),
        "decisions": watcher.total,
        "per_second": round(watcher.total / seconds, 2) if seconds else 0.0,
        "collapsed": watcher.by_status["succeeded"],
        "wasted": watcher.wasted,
        "by_status": dict(watcher.by_status.most_common()),
        "with_address": watcher.located,
        "other_processes": watcher.elsewhere,
        "unnamed": watcher.unnamed,
        "page_cache": dict(watcher.files.most_common()),
        "attempts": [
            {"order": order, "begun": watcher.begun[order], "refused": watcher.refused[order]}
            for order in sorted(watcher.begun, reverse=True)
        ],
        "lost_events": instance.lost,
        "own_cpu_seconds": round(spent, 3),
    }
    if json:
        print(msgspec.json.encode({"summary": facts}).decode(), flush=True)
        return
    print(
        f"\n{pluralize(watcher.total, 'decision')} in {seconds:.1f} s ({facts['per_second']} /s), {watcher.located} with an address, "
        f"{pluralize(watcher.wasted, 'wasted pass', 'wasted passes')}, {watcher.elsewhere} of other processes, "
        f"{f'{watcher.unnamed} that no page tells whose, ' if watcher.unnamed else ''}"
        f"{pluralize(instance.lost, 'event')} lost"
    )
    for status, count in watcher.by_status.most_common():
        print(f"  {count:8} {printable(status)}")
    for order in sorted(watcher.begun, reverse=True):
        begun, refused = watcher.begun[order], watcher.refused[order]
        print(f"  collapses to {kb_of_order(order)}kB: {begun:,} begun, {refused:,} refused")
    if watcher.files:
        print(f"  page cache (no reference is asked): {sum(watcher.files.values())}")
    print(f"  own cost: {spent:.2f} s of CPU, start included")


def _holds_decisions(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return (pq.read_schema(path).metadata or {}).get(b"secondsight.kind") == _DECISIONS.encode()
    except (OSError, pa.ArrowException):
        return False


class DecisionFile:
    """Decisions for a Parquet file, written when the watch ends, under a temporary name first."""

    def __init__(self, path: Path | None) -> None:
        from secondsight import atomicfile
        from secondsight.claim import Claim

        atomicfile.check_writable(path, kind=atomicfile.FileKind("recording of decisions", _holds_decisions))
        # The file is written at the end: until then nobody else begins one that would take its place.
        self._claim = Claim(path) if path is not None else None
        self._path = path
        self._rows: list[TracedDecision] = []

    def add(self, decisions: list[TracedDecision]) -> None:
        """Keep *decisions*, where anything is kept."""
        if self._path is not None:
            self._rows += decisions

    def __enter__(self) -> DecisionFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is None:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        from secondsight import __version__, atomicfile
        from secondsight.live.watch import SCHEMA

        columns = {name: [getattr(row, name) for row in self._rows] for name in SCHEMA}
        kinds = {"int": pa.int64(), "str": pa.string(), "bool": pa.bool_(), "uint": pa.uint64()}
        table = pa.table({name: pa.array(values, kinds[SCHEMA[name]]) for name, values in columns.items()})
        table = table.replace_schema_metadata(
            {"secondsight.kind": _DECISIONS, "secondsight.version": __version__}
        )
        with atomicfile.open_atomic(self._path) as part, part.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
        if self._claim is not None:
            self._claim.close()
