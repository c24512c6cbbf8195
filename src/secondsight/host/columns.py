"""The columns of ``secondsight top``: what each means, how it is told, how rows are sorted and filtered by it.

A column's text in ``COLUMNS`` is what ``--explain`` prints. In JSON and CSV the names are the same, sizes are bytes, times seconds; of an
interval CSV has ``NAME``, ``NAME_low`` and ``NAME_high``, of bounds the latter two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from secondsight.errors import UsageError
from secondsight.host.intervals import Interval
from secondsight.host.rows import HostRow
from secondsight.predict.at_most import Bounds

Value = str | int | float | Interval | Bounds | None


class TopColumn(NamedTuple):
    """*title* over it; *form*: bytes, share, count, seconds, processors or text; *value* of a row; its *meaning*. *blocks*: it takes a look
    at blocks; *sampled*: its value is an interval; *bounded*: it is bounds, with nothing between."""

    name: str
    title: str
    form: str
    value: Callable[[HostRow], Value]
    meaning: str
    blocks: bool = False
    sampled: bool = False
    bounded: bool = False

    @property
    def words(self) -> bool:
        """Whether it is sorted and laid out as text: a PID is a number."""
        return self.form == "text" and self.name != "pid"


def _proc(
    name: str, form: str, meaning: str, title: str = "", value: Callable[[HostRow], Value] | None = None
) -> TopColumn:
    """A column that the kernel's sums and names fill; the row's attribute of that name, unless *value* says what."""
    return TopColumn(name, title or name, form, value or attrgetter(name), meaning)


def _read(
    name: str, form: str, meaning: str, title: str = "", value: Callable[[HostRow], Value] | None = None
) -> TopColumn:
    """A column that takes a look at blocks."""
    return _proc(name, form, meaning, title, value)._replace(blocks=True)


def _sampled(name: str, form: str, meaning: str, title: str = "", of: str = "") -> TopColumn:
    """A column that takes a look at blocks, of which a sample may do; *of*: the row's attribute, where that is called otherwise."""
    return _read(name, form, meaning, title, attrgetter(of or name))._replace(sampled=True)


def _reasons(row: HostRow) -> str | None:
    if row.now is None:
        return None
    # A mapping's reason is a sentence: what it says first, in a table. JSON has the whole.
    return "; ".join(
        f"{size(reason.bytes)} {re.split(r' ?[(;]', reason.status)[0]}" for reason in row.reasons
    )


def _sizes(row: HostRow) -> str | None:
    if row.sizes is None:
        return None
    # Of one that no block read shows there may be none: together they say how much is left in doubt.
    seen = [f"{name} {text(amount, 'bytes')}" for name, amount in row.sizes.items() if amount.low > 0]
    doubt = max((amount.high for amount in row.sizes.values() if amount.low <= 0), default=0)
    return " ".join([*seen, f"others up to {size(doubt)}"] if doubt else seen)


#: every column, by name
COLUMNS: dict[str, TopColumn] = {column.name: column for column in (
    # whose memory it is
    _proc("pid", "text", "the process's number; empty for a group"),
    _proc("name", "text", "the process's name (comm), or of the group that the row is: --by vm, cgroup, container, user, name"),
    _proc("processes", "count", "processes in the row", "procs"),
    _proc("user", "text", "effective user; empty where a group has several"),
    _proc("cgroup", "text", "path of the memory cgroup; empty where a group has several"),
    _proc("container", "text", "container and Kubernetes pod, by the cgroup's path; empty where it is of none, or a group has several"),
    _proc("vm", "text", "the VM that the process runs: QEMU's -name and libvirt's domain, Firecracker's --id, Cloud Hypervisor's socket"),
    # what there is
    _proc("resident", "bytes",
          "memory mapped. Of a process: Rss. Of a cgroup or container: what is charged to it and mapped (memory.stat: anon and "
          "file_mapped; v1: rss and mapped_file), so that shared memory counts once, where it is charged. Of a VM, user or name: Pss, "
          "each page once over all rows"),
    _proc("huge", "bytes",
          "memory that a PMD maps as a whole, by the kernel's own sums: AnonHugePages, ShmemPmdMapped, FilePmdMapped (smaps_rollup); of a "
          "cgroup anon_thp (v1: rss_huge) in place of the first"),
    _proc("share", "share", "huge / resident", "huge %"),
    _proc("swapped", "bytes", "swapped out", "swap"),
    _proc("hugetlb", "bytes", "hugetlbfs memory, which no other column counts"),
    _read("sizes", "text",
          "mapped memory by the size of the folio that it is the whole of, in mappings that hold whole 2 MiB; 2M: huge, and folios of 2 "
          "MiB mapped page by page; part: of folios mapped in part. Sampled", "by size", _sizes),
    # what could be
    _sampled("now", "bytes",
             "could become huge under the switches as they are: blocks against which nothing speaks that was read. Without kernel memory, "
             "accessed bits and pins are not read, and khugepaged may refuse some of these; sampled"),
    _sampled("now_sure", "bytes",
             "of now: blocks of which everything was read that khugepaged asks, so that the next visit collapses them; 0 without kernel "
             "memory, and where not all of the process's blocks have room: free huge blocks, and below the limits of its memory cgroup",
             "sure"),
    _sampled("if", "bytes",
             "could become huge under the switches of --if (enabled=always and shmem_enabled=always unless given); sampled", of="then"),
    _sampled("gain", "bytes",
             "could become huge now or under --if, and a page of it is known to be used (accessed bit, PG_referenced, a secondary MMU): "
             "what is gained first. Sampled; rows are sorted by it"),
    _sampled("added", "bytes",
             "memory that collapsing all of now and if would add: holes and zero pages filled, swapped pages read in, pages shared through "
             "fork or KSM copied. Sampled", "adds"),
    _read("busy", "processors",
          "processors that it keeps busy: CPU seconds a second, user and system, of all its threads, while the pass was made"),
    _read("saves", "processors",
          "of busy, the processors that huge pages in place of small ones could save: bounds that hold nine times of ten, by this "
          "machine's calibration (`secondsight calibrate`), its CPU time and its size. How often it walks page tables nobody sees, so "
          "there is no middle. 0 where no memory could become huge; unknown without a calibration of this machine, and of a busy VM, whose "
          "walks are nested. Rows are sorted by the upper bound")._replace(bounded=True),
    # what stands in the way
    _sampled("wasted", "count",
             "blocks whose next visit ends in a wasted pass: the scan passes, a huge page is allocated, isolate refuses. Sampled"),
    _read("why", "text",
          "the most frequent reasons under the switches as they are, with the size of the 2 MiB blocks that each keeps small, however "
          "little is in them: khugepaged's word for a block, or why the mapping may hold no huge page", "what keeps the rest small",
          _reasons),
    _proc("headroom", "bytes",
          "what the memory cgroup and its ancestors may still be charged: the tightest limit's unused bytes and half of its inactive file "
          "pages; empty where no limit is set"),
    _read("visit", "seconds",
          "khugepaged's next visit, at the latest: one round through all eligible mappings of the host, pages_to_scan every "
          "scan_sleep_millisecs; on average half of it"),
    # of VMs, and of the sample
    _read("guest", "bytes", "of a VM: resident memory of its RAM alone, not of the VMM's own heap", "guest RAM"),
    _read("guest_huge", "bytes", "of guest RAM: mapped by PMDs on the host's side", "guest huge"),
    _read("read", "share", "of the blocks that a sample is drawn from, how many were read; 100 %: no interval is open",
          value=attrgetter("share_read")),
)}  # fmt: skip

#: what every kind of row shows unless --columns says otherwise, after what names it; the first that fit
_EVERY = "now if gain added why sizes wasted headroom visit busy saves"
_SHOWN = {
    "process": f"pid name resident huge share {_EVERY} cgroup",
    "vm": f"name guest guest_huge resident share {_EVERY}",
}
_GROUP = f"name processes resident huge share {_EVERY}"


def shown(by: str) -> tuple[str, ...]:
    """The columns of rows of kind *by* unless others are asked for."""
    return tuple(_SHOWN.get(by, _GROUP).split())


def chosen(names: str | None, by: str) -> tuple[str, ...]:
    """The columns that *names*, parted by commas, name; those of *by* without any. ``+NAME`` adds to those.

    :raises UsageError: a column that there is not.
    """
    if names is None:
        return shown(by)
    columns: list[str] = []
    for word in names.split(","):
        name = word.strip()
        if name.startswith("+"):
            columns = columns or list(shown(by))
            name = name[1:]
        if name not in COLUMNS:
            raise UsageError(f"--columns {name or repr(names)}: is one of {', '.join(COLUMNS)}")
        if name not in columns:
            columns.append(name)
    return tuple(columns)


#: how far from the middle of its interval a figure may lie, as a share of half the width, that ± still tells it
_EVEN = 0.1


def size(number: float) -> str:
    """Bytes in five characters: ``0``, ``4.0K``, ``812M``, ``1.5T``."""
    if number < 1024:
        return f"{number:.0f}"
    for unit in "KMGTP":
        number /= 1024
        if number < 9.95:
            return f"{number:.1f}{unit}"
        if number < 1000 or unit == "P":
            return f"{number:.0f}{unit}"
    raise AssertionError


def text(value: Value, form: str) -> str:
    """*value* as a person reads it; an interval that is open with half its width: ``1.5G±0.2G``, or by its ends where it reaches much
    farther to one side: ``0..97M``."""
    if value is None:
        return "-"
    if isinstance(value, Interval):
        middle = text(value.value, form)
        half = (value.high - value.low) / 2
        if value.known:
            return middle
        even = abs(value.value - (value.low + value.high) / 2) <= _EVEN * half
        return (
            f"{middle}±{text(half, form)}" if even else f"{text(value.low, form)}..{text(value.high, form)}"
        )
    if isinstance(value, Bounds):
        return (
            f"{text(value.low, form)}..{text(value.high, form)}"
            if value.low != value.high
            else text(value.low, form)
        )
    if form == "processors":
        return f"{float(value):.2f}"
    if form == "bytes":
        return size(float(value))
    if form == "share":
        return f"{100 * float(value):.1f} %"
    if form == "count":
        return f"{float(value):,.0f}"
    if form == "seconds":
        return duration(float(value))
    return str(value)


def duration(seconds: float) -> str:
    """``12 s``, ``7 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def order(rows: Iterable[HostRow], by: str | None) -> list[HostRow]:
    """*rows* by column *by*, numbers largest first, text rising; ``-NAME`` the other way about. None: by gain, then if, then resident.

    :raises UsageError: a column that there is not.
    """
    if by is None:
        return sorted(
            rows,
            key=lambda row: (-_number(row.gain), -_number(row.then), -row.resident, row.name, row.pid or 0),
        )
    name = by.removeprefix("-")
    column = _column(name, "--sort")
    key: Callable[[HostRow], Any] = (
        (lambda row: str(column.value(row) or ""))
        if column.words
        else (lambda row: -_number(column.value(row)))
    )
    ordered = sorted(rows, key=lambda row: (key(row), row.name, row.pid or 0))
    return ordered[::-1] if by.startswith("-") else ordered


def _number(value: Value) -> float:
    """What *value* is sorted by: an unknown below everything."""
    if isinstance(value, Interval):
        return value.value
    if isinstance(value, Bounds):
        return value.high
    return float(value) if isinstance(value, (int, float)) else -1.0


_FILTER = re.compile(r"^\s*(\w+)\s*(>=|<=|!=|!~|=|~|>|<)\s*(.*?)\s*$", re.S)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def keep(rows: Iterable[HostRow], filters: Sequence[str]) -> list[HostRow]:
    """The *rows* for which each of *filters* holds: ``resident>1G``, ``share<50%``, ``name~redis``, ``user=root``, ``vm!=``.

    ``~`` is a regular expression found anywhere. A figure that is unknown satisfies none but ``!=``.

    :raises UsageError: not such a condition.
    """
    tests = [_test(each) for each in filters]
    return [row for row in rows if all(test(row) for test in tests)]


def filtered(condition: str) -> str:
    """The column that *condition* asks."""
    match = _FILTER.match(condition)
    return match[1] if match else ""


def _test(condition: str) -> Callable[[HostRow], bool]:
    match = _FILTER.match(condition)
    if match is None:
        raise UsageError(
            f"--filter {condition}: write COLUMN>VALUE (or <, >=, <=, =, !=, ~, !~), such as resident>1G or name~redis"
        )
    name, sign, value = match.groups()
    column = _column(name, "--filter")
    if sign in ("~", "!~"):
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise UsageError(f"--filter {condition}: {error}") from None
        return lambda row: (pattern.search(str(column.value(row) or "")) is None) == (sign == "!~")
    if column.words:
        if sign not in ("=", "!="):
            raise UsageError(f"--filter {condition}: {name} is text; compare it with =, !=, ~ or !~")
        return lambda row: (str(column.value(row) or "") == value) == (sign == "=")
    amount = _amount(value, condition)
    compare: dict[str, Callable[[float], bool]] = {
        ">": lambda held: held > amount, "<": lambda held: held < amount, ">=": lambda held: held >= amount,
        "<=": lambda held: held <= amount, "=": lambda held: held == amount, "!=": lambda held: held != amount,
    }  # fmt: skip
    return lambda row: sign == "!=" if (held := column.value(row)) is None else compare[sign](_number(held))


def _amount(value: str, condition: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKmMgGtT]?)(?:i?[bB])?|(%))", value)
    if match is None:
        raise UsageError(f"--filter {condition}: {value!r} is no number such as 512M, 50% or 3")
    return float(match[1]) / 100 if match[3] else float(match[1]) * _UNITS[(match[2] or "").lower()]


def _column(name: str, option: str) -> TopColumn:
    if name not in COLUMNS:
        raise UsageError(f"{option} {name}: is one of {', '.join(COLUMNS)}")
    return COLUMNS[name]
