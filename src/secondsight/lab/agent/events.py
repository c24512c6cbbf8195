"""khugepaged's trace, and which block each event speaks of.

    ss_scan: (mm_find_pmd+0x0/...) mm=M addr=A            our kprobe: khugepaged looks at the block at A
      mm_collapse_huge_page_swapin                         only if pages were swapped out
      mm_collapse_huge_page_isolate                        only if the scan passed and the rest was found unchanged
      mm_collapse_huge_page                                only if the scan passed: ends a candidate; since 7.2 the next may follow
    mm_khugepaged_scan_pmd: mm=M scan_pfn=P ... status=S   last, with the final status

The kprobe is on what the scan does first, and a collapse does again (find_pmd_or_thp_or_none; the scan itself is inlined
on 7.x). It names the block outright. What the other events say must fit it, else the trace is not to be trusted: the same mm
throughout, blocks of one mm in ascending order, and a scan_pfn that belonged to the block before the pass (where the page
was not swapped in or replaced meanwhile).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER, PMD_SHIFT, PMD_SIZE
from secondsight.scenario.results import AttemptEvent, BlockPass, IsolateEvent, SwapinEvent

__all__ = ["TraceError", "TraceLine", "TracedSpace", "attribute", "parse"]

_LINE = re.compile(r"^\s*(.+)-(\d+)\s+\[\d+\]\s+\S+\s+[\d.]+: (\w+): (.*)$")
_FIELD = re.compile(r"(\w+)=([^,\s]+)")
_NONE = 0xFFFF_FFFF_FFFF_FFFF

SCAN, PMD = "ss_scan", "mm_khugepaged_scan_pmd"
ISOLATE, SWAPIN, COLLAPSE = (
    "mm_collapse_huge_page_isolate",
    "mm_collapse_huge_page_swapin",
    "mm_collapse_huge_page",
)


class TraceError(Exception):
    """The trace does not fit what is known of the spaces: events were lost, or read wrongly."""


class TraceLine(NamedTuple):
    """One line of the trace: which task, its pid, which event, its fields as printed."""

    task: str
    pid: int
    name: str
    fields: dict[str, str]

    def number(self, field: str) -> int:
        """The field as a number (pointers and frame numbers are hexadecimal)."""
        text = self.fields[field]
        return int(text, 16) if re.fullmatch(r"(0x)?[0-9a-f]{8,}|0x[0-9a-f]+", text) else int(text)


class TracedSpace(NamedTuple):
    """A space as the trace can name it, and the frames of its pages just before the pass (uint64[blocks * 512], 0 where none); *file*: what
    the kernel calls its shared memory, empty for a private area."""

    space: str
    base: int
    blocks: int
    frames: npt.NDArray[np.uint64]
    file: str = ""


def parse(text: str) -> list[TraceLine]:
    """The events in the text of a tracefs ``trace`` file, in order.

    :raises TraceError: a line that is neither event nor comment.
    """
    out: list[TraceLine] = []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if "LOST" in line:
            raise TraceError(f"the kernel lost events: {line.strip()}")
        match = _LINE.match(line)
        if not match:
            raise TraceError(f"not an event: {line!r}")
        out.append(TraceLine(match[1].strip(), int(match[2]), match[3], dict(_FIELD.findall(match[4]))))
    return out


def attribute(events: Iterable[TraceLine], areas: Mapping[int, TracedSpace], number: int) -> list[BlockPass]:
    """The visits of khugepaged to *areas* (by mm pointer) in pass *number*, in the order made.

    Visits to other processes are left out.

    :raises TraceError: the events do not fit together.
    """
    out: list[BlockPass] = []
    last: dict[int, int] = {}
    hashed: dict[
        int, int
    ] = {}  # before no_hash_pointers (5.12, 5ead723a20e0) the tracepoints say 32 bits that stand for an mm
    current: tuple[int, int] | None = None
    inner: list[dict[str, TraceLine]] = []
    for event in events:
        if not event.task.startswith("khugepaged"):
            continue
        if event.name == SCAN:
            looked = (event.number("mm"), event.number("addr"))
            if looked[0] in areas and areas[looked[0]].file:
                # Its page table is looked for when a page of the cache has become huge (``file_events``).
                continue
            if current is None:
                current, inner = looked, []
            elif current != looked:
                raise TraceError(f"a visit to {current[1]:#x} has no end: {looked[1]:#x} is looked at")
        elif event.name in (ISOLATE, SWAPIN, COLLAPSE):
            if not inner or COLLAPSE in inner[-1]:
                inner.append({})
            if current is None or event.name in inner[-1]:
                raise TraceError(f"{event.name} outside a visit, or twice in one candidate")
            inner[-1][event.name] = event
        elif event.name == PMD:
            if current is None:
                raise TraceError("a visit ends that has not begun")
            mm, address = current
            reported_mm = event.number("mm")
            if reported_mm >> 32 == 0:
                reported_mm = hashed.setdefault(reported_mm, mm)
            if reported_mm != mm:
                raise TraceError(f"a visit to mm {mm:#x} ends as one to {event.fields['mm']}")
            current = None
            area = areas.get(mm)
            if area is None or not area.base <= address < area.base + area.blocks * PMD_SIZE:
                continue
            block = (address - area.base) >> PMD_SHIFT
            if last.get(mm, -1) >= block:
                raise TraceError(f"space {area.space}: block {block} visited after block {last[mm]}")
            last[mm] = block
            out.append(_visit(area, block, number, event, inner))
    if current is not None:
        raise TraceError(f"a visit to {current[1]:#x} has no end")
    return out


def _visit(
    area: TracedSpace, block: int, number: int, event: TraceLine, inner: Sequence[Mapping[str, TraceLine]]
) -> BlockPass:
    pfn = event.number("scan_pfn")
    owners = set((np.flatnonzero(area.frames == np.uint64(pfn)) // HPAGE_PMD_NR).tolist())
    if pfn != _NONE and owners and block not in owners:
        raise TraceError(
            f"space {area.space}: the scan of block {block} names a page of blocks {sorted(owners)}"
        )
    tried = [_attempt(area, block, each) for each in inner]
    first = tried[0] if tried else None
    return BlockPass(
        pass_=number,
        space=area.space,
        block=block,
        status=event.fields["status"],
        referenced=event.number("referenced"),
        none_or_zero=event.number("none_or_zero"),
        unmapped=event.number("unmapped"),
        writable=event.number("writable") if "writable" in event.fields else None,
        swapin=first.swapin if first else None,
        isolate=first.isolate if first else None,
        collapse=first.status if first else None,
        order=first.order if first else PMD_ORDER,
        further=tuple(tried[1:]),
    )


def _attempt(area: TracedSpace, block: int, events: Mapping[str, TraceLine]) -> AttemptEvent:
    isolate, swapin, collapse = events.get(ISOLATE), events.get(SWAPIN), events.get(COLLAPSE)
    if collapse is None:
        raise TraceError(f"space {area.space}: a collapse of block {block} was begun and has no end")
    return AttemptEvent(
        collapse.fields["status"],
        collapse.number("order") if "order" in collapse.fields else PMD_ORDER,
        # ret is an enum scan_result: SCAN_SUCCEED is 1.
        swapin=SwapinEvent(
            swapin.number("swapped_in"), swapin.number("referenced"), int(swapin.number("ret") == 1)
        )
        if swapin
        else None,
        isolate=IsolateEvent(
            isolate.fields["status"],
            isolate.number("referenced"),
            isolate.number("none_or_zero"),
            isolate.number("writable") if "writable" in isolate.fields else None,
        )
        if isolate
        else None,
    )
