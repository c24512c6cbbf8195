"""A part of a trace: by time, space and address; and what is intact of a damaged one."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

import numpy as np

from secondsight.errors import SecondSightError, UsageError
from secondsight.trace.format import Trace
from secondsight.trace.kinds import COLUMNS, FIRST_VERB
from secondsight.trace.provenance import PAGE_WALKS, Provenance, with_fields
from secondsight.trace.writer import Profile, TraceWriter


def cut(
    trace: Trace,
    path: str | os.PathLike[str],
    *,
    time: tuple[int, int] | None = None,
    spaces: Collection[int] | None = None,
    address: tuple[int, int] | None = None,
    profile: Profile = "compact",
    progress: Callable[[int, int], None] | None = None,
) -> Provenance:
    """Write the rows of *trace* inside *time* (ns), of *spaces*, and inside *address* (bytes) to *path*.

    Ranges are (first, end), the end excluded. Spaces keep their numbers. Verbs are kept whatever their address,
    since they act on ranges. *progress*: see :meth:`Trace.batches`.

    :raises UsageError: an empty range or a space that is not there.
    """
    for name, limits in (("time", time), ("address", address)):
        if limits is not None and not 0 <= limits[0] < limits[1] <= 1 << 64:
            raise UsageError(
                f"{name} {limits[0]}..{limits[1]}: expected a first below an end, of at most 2**64"
            )
    if spaces is not None and (missing := [s for s in spaces if not 0 <= s < len(trace.spaces)]):
        raise UsageError(f"no space {missing[0]} in {trace.path}; there are {len(trace.spaces)}, from 0")
    if time is not None:
        time = (time[0], min(time[1], (1 << 64) - 1))
    notes = [*trace.provenance.notes, _note_of_cut(time, spaces, address)]
    start = with_fields(_of_a_part(trace.provenance), notes=notes)
    with TraceWriter(path, start, profile=profile) as writer:
        for batch in trace.batches(time=time, progress=progress):
            keep = np.ones(len(batch), dtype=np.bool_)
            if spaces is not None:
                keep &= np.isin(batch.space, list(spaces))
            if address is not None:
                inside = (batch.address >= np.uint64(address[0])) & (
                    batch.address <= np.uint64(address[1] - 1)
                )
                keep &= inside | (batch.kind >= FIRST_VERB)
            writer.append(*(batch[name][keep] for name in COLUMNS))
        return writer.close()


def _of_a_part(provenance: Provenance) -> Provenance:
    """*provenance* without what was measured or counted over the whole trace: walks, CPU time, the hash."""
    unseen = list(provenance.unseen)
    if provenance.walks and PAGE_WALKS not in unseen:
        unseen.insert(0, PAGE_WALKS)
    return with_fields(provenance, content_hash=None, unseen=unseen, walks=[], cpu_seconds=None, cpu_thp="")


def _note_of_cut(
    time: tuple[int, int] | None, spaces: Collection[int] | None, address: tuple[int, int] | None
) -> str:
    """The cut in words, for the notes."""
    parts = []
    if time is not None:
        parts.append(f"time {time[0]}..{time[1]} ns")
    if spaces is not None:
        parts.append("spaces " + ", ".join(map(str, sorted(spaces))))
    if address is not None:
        parts.append(f"addresses 0x{address[0]:x}..0x{address[1]:x}")
    return "cut to " + ("; ".join(parts) or "everything")


def salvage(
    source: str, path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> tuple[Provenance, list[str]]:
    """Write the intact row groups of the damaged trace *source* to *path*; returns what was left out.

    Checksums are verified. *progress*: see :meth:`Trace.batches`.

    :raises InputError: *source* is not even openable.
    :raises SecondSightError: nothing of it is intact.
    """
    trace = Trace.open(source, skip_damaged=True, verify=True)
    start = with_fields(trace.provenance, content_hash=None)
    with TraceWriter(path, start) as writer:
        for batch in trace.batches(progress=progress):
            writer.append(*(batch[name] for name in COLUMNS))
        if trace.damaged and not writer.rows:
            raise SecondSightError(
                f"{source}: none of its {len(trace.damaged)} row groups is intact, so no trace is made; {trace.damaged[0]}"
            )
        notes = [*trace.provenance.notes]
        if trace.damaged:
            start = _of_a_part(start)
            notes.append(f"recovered: {len(trace.damaged)} damaged row groups left out")
        return writer.close(with_fields(start, notes=notes)), trace.damaged
