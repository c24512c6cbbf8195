"""damo's records: JSON, zlib-compressed JSON, ``perf script`` text of ``damon:damon_aggregated``, and its raw report.

::

    [{"target_id": 0, "snapshots": [{"start_time": …, "end_time": …, "regions": [
        {"start": …, "end": …, "nr_accesses": {"samples": 3, …}, "age": …}, …]}, …]}, …]

    kdamond.0  4452 [000] 82877.315633: damon:damon_aggregated: target_id=18446623435582458880 nr_regions=17
        140731667070976-140731668037632: 0 3            (one line: start-end: samples age)

    base_time_absolute: 1 m 22.8 s … monitoring_end: 100 ms … target_id: 0 … 7ffe5a6b4000-7ffe5a7a0000 (944.000 KiB) 0 3

DAMON looks at one page of a region and says in how many samples it was accessed. Here every page of a region
with any is a row with that count, at the snapshot's end; reads and writes are not told apart (cpu_read).
Records are per target, so the regions are gathered (40 bytes each) and put into the order of time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secondsight.errors import InputError
from secondsight.geometry import PAGE_SHIFT, PAGE_SIZE
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import PROCESS_ADDRESS_BITS, Kind
from secondsight.trace.provenance import Clock
from secondsight.trace.read.text import ByteStream, Lines

_LINE: Final = re.compile(
    rb"[^\n]*?(\d{1,10})\.(\d{6}|\d{9}):[ \t]+(?:damon:)?damon_aggregated:[ \t]+target_id=(\d{1,20}|None)[ \t]+"
    rb"nr_regions=\d+[ \t]+(\d{1,20})-(\d{1,20}):[ \t]+(\d{1,10}|-1)(?:[ \t]+(?:-?\d+|None))?[ \t\r]*\n"
)
_RAW: Final = re.compile(
    rb"[ \t]*([0-9a-f]{1,16})-([0-9a-f]{1,16})[ \t]+"
    rb"\([^)\n]{1,40}\)[ \t]+(-?\d[\d,]{0,13})(?:[ \t]+-?[\d,]+)?[ \t\r]*\n"
)
_RAW_HEADS: Final = (
    *(b"base_time_absolute", b"data source", b"monitoring_start", b"monitoring_end", b"monitoring_duration"),
    *(b"target_id", b"nr_regions"),
)  # fmt: skip
PHYSICAL: Final = "addresses are the machine's physical ones: a block of it is no process's"
_FIRST_OBJECT: Final = re.compile(rb"\s*\[\s*(?:\{|\])")
_SNAPSHOTS: Final = re.compile(r'"snapshots"\s*:\s*\[')
_TARGET: Final = re.compile(r'"target_id"\s*:\s*("[^"]*"|[^,}\s]+)')
_CHUNK: Final = 1 << 20
_MOST_OBJECT: Final = 1 << 28  # characters of one snapshot
_EXPAND: Final = 1 << 20  # rows at once
#: Pages of an accessed region, 128 GiB. Every one becomes a row: a larger region says nothing of any page, and a file of a line would
#: be read for minutes or without end.
_MOST_PAGES: Final = 1 << 25
_NS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
UNSEEN: Final = [
    "which page of a region was accessed: DAMON samples one of each",
    "whether an access was a read or a write",
    "page walks",
]
Accessed = tuple[int, NDArray[np.uint64], NDArray[np.uint8]]  # a space, numbers of its pages, their kinds


class DamonRegion(NamedTuple):
    """Bytes [start, end) of a space, accessed in *samples* of DAMON's samples by *time* (ns)."""

    time: int
    space: int
    start: int
    end: int
    samples: int


def detects_json(head: bytes) -> bool:
    """Whether *head* begins a list of damo's records."""
    return _FIRST_OBJECT.match(head) is not None and (
        b"snapshots" in head or b"target_id" in head or b"kdamond_idx" in head
    )


def detects_text(head: bytes) -> bool:
    """Whether *head* looks like perf script's text of DAMON's tracepoint."""
    return b"damon_aggregated:" in head


def detects_raw(head: bytes) -> bool:
    """Whether *head* looks like damo's raw form."""
    return head.lstrip().startswith(b"base_time_absolute:") and b"monitoring_start:" in head


def read_text(stream: ByteStream, intake: Intake) -> None:
    """Read perf script's text; lines of other events are skipped and counted.

    :raises InputError: a torn or foreign line, by line and byte.
    """
    lines = Lines(stream)
    spaces: dict[bytes, int] = {}

    def regions() -> Iterator[DamonRegion]:
        for block in lines.blocks():
            for line in lines.split(block):
                if not line.strip() or line.startswith(b"#"):
                    continue
                match = _LINE.fullmatch(line)
                if match is None:
                    if b"damon_aggregated:" in line or b": damon:" not in line:
                        raise lines.error(
                            line, "'… 82877.315633: damon:damon_aggregated: target_id=… nr_regions=… A-B: N'"
                        )
                    intake.drop("lines of other events")
                    continue
                seconds, fraction, target, start, end, samples = match.groups()
                time = int(seconds) * 10**9 + int(fraction) * (1 if len(fraction) == 9 else 1000)
                if target not in spaces:
                    spaces[target] = _space(intake, target.decode())
                yield _checked(
                    stream.name, lines.where, time, spaces[target], int(start), int(end), int(samples)
                )

    _gather(regions(), intake)


def read_json(stream: ByteStream, intake: Intake) -> None:
    """Read a list of records, snapshot by snapshot.

    :raises InputError: what is no record of damo's, or a torn list.
    """

    def regions() -> Iterator[DamonRegion]:
        for where, target, snapshot in _snapshots(stream):
            space = spaces.get(target)
            if space is None:
                space = spaces[target] = _space(intake, target)
            try:
                time = _nanoseconds(snapshot["end_time"])
                for region in snapshot["regions"]:
                    seen = region.get("nr_accesses")
                    samples = 0 if seen is None else _number(seen["samples"])
                    start, end = _number(region["start"]), _number(region["end"])
                    yield _checked(stream.name, where, time, space, start, end, samples)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise InputError(
                    stream.name, where, f"not a snapshot of damo's ({type(error).__name__}: {error})"
                ) from None

    spaces: dict[str, int] = {}
    _gather(regions(), intake)


def read_raw(stream: ByteStream, intake: Intake) -> None:
    """Read the text of ``damo report access --raw_form``; its times count from the first snapshot's start.

    :raises InputError: a torn or foreign line, by line and byte.
    """
    lines = Lines(stream)
    spaces: dict[str, int] = {}

    def regions() -> Iterator[DamonRegion]:
        base = time = 0
        target = ""
        for block in lines.blocks():
            for line in lines.split(block):
                text = line.strip()
                head, colon, value = text.partition(b":")
                if region := _RAW.fullmatch(line):
                    if target not in spaces:
                        spaces[target] = _space(intake, target)
                    start, end, samples = (
                        int(region[1], 16),
                        int(region[2], 16),
                        int(region[3].replace(b",", b"")),
                    )
                    yield _checked(stream.name, lines.where, time, spaces[target], start, end, samples)
                elif colon and head in _RAW_HEADS:
                    try:
                        if head == b"base_time_absolute":
                            base = _nanoseconds(value.strip().decode("ascii"))
                        elif head == b"monitoring_end":
                            time = base + _nanoseconds(value.strip().decode("ascii"))
                    except (ValueError, KeyError, OverflowError):
                        raise lines.error(line, "a time of damo's, like '1 m 2.5 s'") from None
                    if head == b"target_id":
                        target = value.strip().decode("ascii", "replace")
                elif text and not text.startswith(b"#"):
                    raise lines.error(line, "a line of damo's raw form, like '7f00-8f00 (4.000 KiB) 3 10'")

    _gather(regions(), intake)


def _space(intake: Intake, target: str) -> int:
    """A space for *target*; physical memory, which damo calls None, says so."""
    if target not in ("None", "null"):
        return intake.add_space(f"target {target}")
    intake.update(notes=[*intake.sink.provenance.notes, PHYSICAL])
    return intake.add_space("physical memory")


def _checked(name: str, where: str, time: int, space: int, start: int, end: int, samples: int) -> DamonRegion:
    """A region, or an error if its numbers cannot be; the fake last snapshot of damo (0-0: -1) has no pages and no samples."""
    if (
        not (0 <= start <= end <= 1 << PROCESS_ADDRESS_BITS)
        or not 0 <= time < 1 << 63
        or not -1 <= samples < 1 << 32
    ):
        raise InputError(name, where, f"a region {start}-{end} with {samples} samples at {time} ns cannot be")
    if samples > 0 and (end - start) >> PAGE_SHIFT > _MOST_PAGES:
        raise InputError(
            name,
            where,
            f"an accessed region of {(end - start) >> 30:,} GiB, {start}-{end}, is more than the {_MOST_PAGES >> 30 - PAGE_SHIFT} GiB "
            "that can be told page by page: record with more regions (damo record --monitoring_nr_regions_range)",
        )
    return DamonRegion(time, space, start, end, max(samples, 0))


def _gather(regions: Iterator[DamonRegion], intake: Intake) -> None:
    """Put the regions into the order of time and append each page of those accessed."""
    intake.update(clock=Clock(meaning="DAMON's clock: the end of each aggregation interval"), unseen=UNSEEN)
    parts: list[NDArray[np.uint64]] = []
    held: list[DamonRegion] = []
    for region in regions:
        if region[4]:
            held.append(region)
        if len(held) >= _EXPAND:
            parts.append(np.array(held, dtype=np.uint64))
            held.clear()
    parts.append(np.array(held, dtype=np.uint64).reshape(-1, 5))
    table = np.concatenate(parts)
    table = table[np.argsort(table[:, 0], kind="stable")]
    for row in table.tolist():
        append_region(intake, DamonRegion(*row))


def append_region(
    intake: Intake, region: DamonRegion, within: Callable[[int, int], Iterable[Accessed]] | None = None
) -> None:
    """Append a row for each page of *region*; with *within*, for those that it names of a range of page numbers, as it calls them."""
    time, space, start, end, samples = region
    for first in range(start >> PAGE_SHIFT, (end + PAGE_SIZE - 1) >> PAGE_SHIFT, _EXPAND):
        stop = min(first + _EXPAND, (end + PAGE_SIZE - 1) >> PAGE_SHIFT)
        if within is None:
            pages = np.arange(first, stop, dtype=np.uint64)
            accesses: Iterable[Accessed] = [(space, pages, np.full(pages.size, Kind.CPU_READ, np.uint8))]
        else:
            accesses = within(first, stop)
        for owner, pages, kinds in accesses:
            times = np.full(pages.size, time, np.uint64)
            intake.append(times, owner, pages << np.uint64(PAGE_SHIFT), kinds, samples)


def _number(value: Any) -> int:
    """An integer as damo writes it: a number, or text with thousands' commas."""
    if isinstance(value, str):
        return int(value.replace(",", ""))
    return int(value)


def _nanoseconds(value: Any) -> int:
    """A time as damo writes it: ns as a number or text, or text with units (``1 m 2.5 s``)."""
    if not isinstance(value, str):
        return int(value)
    try:
        return int(value.replace(",", ""))
    except ValueError:
        pass
    fields = re.findall(r"([\d.,]+)\s*([a-z]+)", value)
    if not fields:
        raise ValueError(f"no time: {value[:40]!r}")
    return int(sum(float(number.replace(",", "")) * _NS[unit] for number, unit in fields))


def _snapshots(stream: ByteStream) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each snapshot with where it stands and its target, decoded one at a time so that memory stays bounded."""
    decoder = json.JSONDecoder()
    text, at, base = "", 0, 0  # at: the next character of text; base: characters before text
    target, inside = "0", False

    def more() -> bool:
        nonlocal text, at, base
        data = stream.read(_CHUNK)
        base += at
        text = text[at:] + data.decode("ascii", "replace")
        at = 0
        return bool(data)

    while True:
        if not inside:
            match = _SNAPSHOTS.search(text, at)
            if match is None:
                if len(text) - at > _MOST_OBJECT or not more():
                    break
                continue
            named = _TARGET.findall(text, at, match.start())
            target = named[-1].strip('"') if named else "0"
            at, inside = match.end(), True
        rest = re.compile(r"[\s,]*").match(text, at)
        start = rest.end() if rest else at
        if start >= len(text):
            if not more():
                raise InputError(
                    stream.name, f"character {base + at}", "the JSON ends inside a record's snapshots: torn"
                )
            continue
        if text[start] == "]":
            at, inside = start + 1, False
            continue
        try:
            snapshot, at = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError) as error:
            if isinstance(error, RecursionError) or len(text) - start > _MOST_OBJECT or not more():
                raise InputError(
                    stream.name, f"character {base + start}", "a snapshot's JSON is damaged or torn"
                ) from None
            continue
        if not isinstance(snapshot, dict):
            raise InputError(stream.name, f"character {base + start}", "expected a snapshot ({…})")
        yield f"character {base + start}", target, snapshot
    if base + len(text) and not text[at:].rstrip().endswith("]"):
        raise InputError(stream.name, f"character {base + len(text)}", "the JSON ends early: torn")
