"""Several traces as one: what was recorded side by side, on one clock, becomes the spaces of one host.

a    t=1 A      t=4 B                 spaces 0
b         t=2 C      t=5 D     ->     spaces    1         t=1 A  t=2 C  t=4 B  t=5 D
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.trace.format import Trace
from secondsight.trace.intake import MOST_SPACES
from secondsight.trace.kinds import COLUMNS, Verb
from secondsight.trace.provenance import PAGE_WALKS, Provenance, Space, with_fields
from secondsight.trace.writer import Profile, TraceWriter

Columns = dict[str, npt.NDArray[Any]]


def merge(
    traces: Sequence[Trace],
    path: str | os.PathLike[str],
    *,
    profile: Profile = "compact",
    rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Provenance:
    """Write the rows of *traces* to *path* in the order of their times, the spaces of each behind those of the ones before.

    Every trace's clock begins where it began for that trace: they are taken as begun together. Rows of equal times stand in the order of
    *traces*. Of each at most *rows* are held at a time (default: a row group). *progress* is called with the rows done with and all rows.

    :raises UsageError: fewer than two traces, more spaces than a trace holds, or clocks that count different things.
    """
    if len(traces) < 2:
        raise UsageError("there is nothing to merge: name two traces or more")
    if (many := sum(len(trace.spaces) for trace in traces)) > MOST_SPACES:
        raise UsageError(f"{many:,} spaces together: a trace holds at most {MOST_SPACES:,}")
    first = traces[0].provenance
    for trace in traces[1:]:
        if trace.provenance.clock != first.clock:
            raise UsageError(
                f"{trace.path} counts {trace.provenance.clock.meaning!r}, and {traces[0].path} {first.clock.meaning!r}: "
                f"one clock cannot be both"
            )
    shifts = np.cumsum([0, *(len(trace.spaces) for trace in traces[:-1])]).tolist()
    with TraceWriter(path, _provenance(traces, shifts), profile=profile) as writer:
        done, total = 0, sum(trace.rows for trace in traces)
        for columns in _in_order(
            [_shifted(trace, by, rows) for trace, by in zip(traces, shifts, strict=True)]
        ):
            writer.append(*(columns[name] for name in COLUMNS))
            done += len(columns["time"])
            if progress is not None:
                progress(done, total)
        return writer.close()


def _shifted(trace: Trace, by: int, rows: int | None) -> Iterator[Columns]:
    """The trace's batches, its spaces numbered from *by* on; a fork names its child's space."""
    for batch in trace.batches(rows=rows):
        columns: Columns = {name: batch[name] for name in COLUMNS}
        columns["space"] = columns["space"] + np.uint16(by)
        columns["count"] = columns["count"] + np.uint32(by) * (columns["kind"] == Verb.FORK).astype(np.uint32)
        yield columns


def _in_order(sources: list[Iterator[Columns]]) -> Iterator[Columns]:
    """The rows of all *sources* by time; of each a batch is held at a time, and what stands before the earliest of their ends goes out."""
    held: list[Columns | None] = [next(source, None) for source in sources]
    while any(each is not None for each in held):
        limit = min(int(each["time"][-1]) for each in held if each is not None)
        parts: list[Columns] = []
        for number, source in enumerate(sources):
            # Rows of the limit's own time too: none later can stand before them, but a source may have more of that time.
            while (columns := held[number]) is not None:
                end = int(np.searchsorted(columns["time"], np.uint64(limit), side="right"))
                parts.append({name: column[:end] for name, column in columns.items()})
                if end < len(columns["time"]):
                    held[number] = {name: column[end:] for name, column in columns.items()}
                    break
                held[number] = next(source, None)
        whole = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        order = np.argsort(whole["time"], kind="stable")
        yield {name: column[order] for name, column in whole.items()}


def _provenance(traces: Sequence[Trace], shifts: Sequence[int]) -> Provenance:
    """Of all together: each one's spaces, named with its file where they share a name; what any could not see; what all left out."""
    names = [space.name for trace in traces for space in trace.spaces]
    spaces: list[Space] = []
    dropped: dict[str, int] = {}
    unseen: list[str] = []
    notes: list[str] = []
    stems = [Path(trace.path).stem for trace in traces]
    for number, (trace, by) in enumerate(zip(traces, shifts, strict=True)):
        # Two files of one name, in two directories, which are no business of the trace's.
        stem = stems[number]
        if stems.count(stem) > 1:
            stem = f"{stem} ({number + 1})"
        about = trace.provenance
        for space in trace.spaces:
            name = f"{stem}: {space.name}" if names.count(space.name) > 1 else space.name
            parent = None if space.parent is None else space.parent + by
            spaces.append(Space(id=space.id + by, name=name, type=space.type, parent=parent))
        for reason, count in about.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        unseen += [what for what in about.unseen if what not in unseen]
        notes += [f"{stem}: {note}" for note in about.notes]
    walks = [
        msgspec.structs.replace(each, space=each.space + by)
        for trace, by in zip(traces, shifts, strict=True)
        for each in trace.provenance.walks
    ]
    if walks and len({walk.space for walk in walks}) < len(spaces) and PAGE_WALKS not in unseen:
        unseen.insert(0, PAGE_WALKS)
    sources = {trace.provenance.source for trace in traces}
    return with_fields(
        traces[0].provenance,
        source=sources.pop() if len(sources) == 1 else "merged",
        command=["merge", *(Path(trace.path).name for trace in traces)],
        spaces=spaces,
        dropped=dropped,
        unseen=unseen,
        notes=notes,
        walks=walks,
        quantum=max(trace.provenance.quantum for trace in traces),
        clock_held=sum(trace.provenance.clock_held for trace in traces),
        content_hash=None,
        input_hash=None,
        cpu_seconds=None,
        cpu_thp="",
    )
