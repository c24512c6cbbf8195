"""khugepaged's visits to shared memory, from its trace.

    ss_file: (hpage_collapse_scan_file+0x0/...) mm=M addr=A      our kprobe: khugepaged scans the file behind the block at A
      mm_khugepaged_collapse_file: mm=M ... addr=A ...            only if the scan passed (since 6.4)
    mm_khugepaged_scan_file: mm=M ... filename=F ... result=R     last, with the final result; it says no address

Up to 6.17 the probe is on the scan. Later the compiler puts the scan into ``collapse_single_pmd`` (7.1), which is handed a VMA: the mm is
its third word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from secondsight.geometry import PMD_SHIFT, PMD_SIZE
from secondsight.lab.agent.events import TracedSpace, TraceError, TraceLine
from secondsight.scenario.results import CollapseFileEvent, FilePass

__all__ = ["COLLAPSE_FILE", "FILE", "SCAN_FILE", "attribute_files", "probe"]

FILE, SCAN_FILE, COLLAPSE_FILE = "ss_file", "mm_khugepaged_scan_file", "mm_khugepaged_collapse_file"
_NONE = 0xFFFF_FFFF_FFFF_FFFF
#: Functions to probe, the first that is there, and where they have the mm and the address.
_PROBED = (
    ("hpage_collapse_scan_file", "mm=%di addr=%si"),
    ("collapse_scan_file", "mm=%di addr=%si"),
    ("collapse_single_pmd", "mm=+16(%si) addr=%di"),
)


def probe(symbols: Path = Path("/proc/kallsyms")) -> str | None:
    """The line of kprobe_events that names the block behind each scan of a file; None where no function does."""
    there = {line.split()[2] for line in symbols.read_text().splitlines() if "collapse_s" in line}
    for function, where in _PROBED:
        if function in there:
            return f"p:secondsight/{FILE} {function} {where}"
    return None


def attribute_files(
    events: Iterable[TraceLine], areas: Mapping[int, TracedSpace], number: int
) -> list[FilePass]:
    """The visits of khugepaged to the *areas* (by mm pointer) of shared memory in pass *number*, in the order made.

    :raises TraceError: the events do not fit together.
    """
    out: list[FilePass] = []
    current: tuple[int, int] | None = None
    collapse: TraceLine | None = None
    for event in events:
        if not event.task.startswith("khugepaged"):
            continue
        if event.name == FILE:
            current, collapse = (event.number("mm"), event.number("addr")), None
        elif event.name == COLLAPSE_FILE:
            if current is None or collapse is not None or event.number("addr") != current[1]:
                raise TraceError(f"{COLLAPSE_FILE} outside a visit, or twice in one")
            collapse = event
        elif event.name == SCAN_FILE:
            if current is None or event.number("mm") != current[0]:
                raise TraceError("a visit to a file ends that has not begun")
            area = areas.get(current[0])
            if area is not None and area.base <= current[1] < area.base + area.blocks * PMD_SIZE:
                out.append(_visit(area, (current[1] - area.base) >> PMD_SHIFT, number, event, collapse))
            current = collapse = None
    return out


def _visit(
    area: TracedSpace, block: int, number: int, event: TraceLine, collapse: TraceLine | None
) -> FilePass:
    names = {each.fields["filename"] for each in (event, collapse) if each is not None}
    if names != {area.file}:
        raise TraceError(f"space {area.space} maps {area.file}, and its scan names {sorted(names)}")
    return FilePass(
        pass_=number, space=area.space, block=block, file=area.file, result=event.fields["result"],
        present=event.number("present"), swap=event.number("swap"), names_page=event.number("scan_pfn") != _NONE,
        collapse=None if collapse is None else CollapseFileEvent(
            result=collapse.fields["result"], index=collapse.number("index"), nr=collapse.number("nr"),
            is_shmem=collapse.number("is_shmem"),
        ),
    )  # fmt: skip
