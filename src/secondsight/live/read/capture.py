"""A snapshot: everything the judgement needs of one process, captured with privilege, judged anywhere without.

On disk a NumPy ``.npz``: one array a column, and ``header``, JSON with the mappings, the limits, what the kernel has, and where it
all came from. Frames' numbers are in it, kernel pointers are not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from secondsight import __version__, atomicfile
from secondsight.bits import pte as bits
from secondsight.errors import InputError, MissingDependency, SecondSightError, UsageError
from secondsight.geometry import PMD_SIZE
from secondsight.live.read import sysfs
from secondsight.live.read.backing import mark_zero_devices
from secondsight.live.read.cached_blocks import CachedBlocks
from secondsight.live.read.columns import Columns, Secondary
from secondsight.live.read.eligible import ineligible
from secondsight.live.read.folio_sizes import orders_of_runs
from secondsight.live.read.limits import read_host
from secondsight.live.read.probe import Facts, probe
from secondsight.live.read.process import Process
from secondsight.live.read.procfs_reader import ProcfsReader
from secondsight.live.read.resolve_unknowns import resolve_accessed, resolve_swapped
from secondsight.live.read.surroundings import Surroundings, with_kernel
from secondsight.live.read.surroundings import read as read_surroundings
from secondsight.live.read.switches import Switches
from secondsight.live.read.switches import read as read_switches
from secondsight.live.read.symbols import kcore_problem
from secondsight.live.read.vma import Vma, clip, parse_maps, parse_smaps
from secondsight.mm.config import Knobs
from secondsight.wholefile import open_input

if TYPE_CHECKING:
    from secondsight.live.read.kmem import KernelMemory

FORMAT = 1
STORED_COLUMNS = tuple(
    field.name for field in fields(Columns) if field.name not in ("counts_known", "secondary")
)

#: bytes that a block takes, read and judged, as `explain` was seen to; so many blocks are read whatever room there is
_BLOCK_TAKES, _AT_ANY_TIME = 60_000, 8192

#: columns that snapshots of earlier versions lack; what they hold then is unknown
_LATER = frozenset({"cached", "evicted", "dirty", "cache", "sizes", "spte_level", "order", "either"})


class Answerer(msgspec.Struct, frozen=True):
    """A notifier of the snapshot; its masks are the arrays ``young_N`` and ``known_N``."""

    name: str
    why: str


class Header(msgspec.Struct, frozen=True):
    """What is not an array. *taken* is seconds since the epoch, *seconds* how long reading took, *longest_call* the longest call that took
    the process's mmap lock; *source* ``kernel memory`` or ``procfs``; *missing* says why kernel memory was not read."""

    format: int
    version: str
    taken: float
    seconds: float
    source: str
    missing: str
    pid: int
    name: str
    machine: str
    facts: Facts
    limits: Knobs
    enabled: str
    counts_known: bool
    secondary: tuple[Answerer, ...]
    mappings: tuple[Vma, ...]
    longest_call: float = 0.0
    surroundings: Surroundings = Surroundings()
    switches: Switches = Switches()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A captured process: *header* and *columns*."""

    header: Header
    columns: Columns


def parse_range(text: str) -> tuple[int, int]:
    """``0x7f0000000000-0x7f0040000000`` (hexadecimal, end exclusive) as numbers.

    :raises UsageError: not such a range.
    """
    try:
        start, end = (int(part, 16) for part in text.split("-"))
    except ValueError:
        raise UsageError(f"--range {text}: write START-END in hexadecimal, as in /proc/PID/maps") from None
    if not 0 <= start < end:
        raise UsageError(f"--range {text}: the end must lie above the start")
    if end > 1 << 57:
        raise UsageError(f"--range {text}: no address has more than 57 bits")
    return start, end


def check_room(count: int, pid: int, room: Callable[[], int]) -> None:
    """Refuse to read *count* blocks of process *pid* at once where they take more than half of the *room* there is, bytes: before 1 TiB of
    pages here and there brings the kernel to end somebody.

    :raises SecondSightError: they do.
    """
    if count > _AT_ANY_TIME and 2 * count * _BLOCK_TAKES > room():
        raise SecondSightError(
            f"process {pid}: {count:,} blocks hold memory; to judge them at once takes {count * _BLOCK_TAKES / 2**30:.1f} GiB, which is "
            f"more than half of what is available; --range LOW-HIGH judges a part of it, `secondsight top --pid {pid}` reads all in parts"
        )


def _available() -> int:
    """Bytes of memory that can be had here without swapping; as many as you like where that is not shown."""
    try:
        return read_host().available
    except MissingDependency:
        return 1 << 62


def take(
    process: Process,
    kernel: KernelMemory | None,
    missing: str = "",
    within: tuple[int, int] | None = None,
    facts: Facts | None = None,
    kept: bool = True,
) -> Snapshot:
    """Capture *process* from *kernel* memory, or from procfs where that is None (*missing* says why).

    Reads every 2 MiB block that holds anything, of every mapping, inside the addresses *within*. Without *facts* the kernel is probed,
    and unless the snapshot is to be *kept* only for what its verdicts ask.

    :raises TargetGone: the process exited or called exec.
    :raises MissingDependency: not even pagemap may be read.
    :raises SecondSightError: so many blocks take more memory than there is.
    """
    begun = time.monotonic()
    path, surroundings = f"/proc/{process.pid}", read_surroundings(process)
    with ProcfsReader(process) as reader:
        every = [
            vma for vma in parse_maps(process.read_file("maps"), f"{path}/maps") if vma.name != "[vsyscall]"
        ]
        looked = clip(every, within)
        populated = [reader.pagemap.populated_blocks(vma.start, vma.end) for vma in looked]
        blocks = np.concatenate(populated) if populated else np.empty(0, np.uint64)
        switches = read_switches(process.pid)
        cache = CachedBlocks.of(process, every, within)
        blocks = cache.joined(blocks)
        check_room(len(blocks), process.pid, _available)
        if kernel is not None:
            from secondsight.live.read.kernel_reader import KernelReader

            kernel_reader = KernelReader(kernel, process)
            columns = kernel_reader.read_blocks(blocks)
            cache.fill(columns)
            kernel_reader.read_page_cache(columns, looked)
            surroundings = with_kernel(surroundings, kernel, kernel_reader.mm)
        else:
            columns = reader.read_blocks(blocks)
            cache.fill(columns)
        surroundings = msgspec.structs.replace(surroundings, vms=reader.vms)
        mappings = mark_zero_devices(process, parse_smaps(process.read_file("smaps"), f"{path}/smaps"))
        if kernel is None:
            resolve_accessed(columns, mappings)
            resolve_swapped(columns, mappings)
    process.require_alive()
    seconds, enabled = time.monotonic() - begun, sysfs.thp_enabled()
    if facts is None:
        judged = any(not ineligible(vma, enabled, switches) for vma in mappings)
        facts = probe() if kept else probe(kallsyms=None, types=judged)
    header = Header(
        format=FORMAT,
        version=__version__,
        taken=time.time(),
        seconds=seconds,
        source="procfs" if kernel is None else "kernel memory",
        missing=missing,
        pid=process.pid,
        name=process.name,
        machine=os.uname().machine,
        facts=facts,
        limits=sysfs.knobs(),
        enabled=enabled,
        counts_known=columns.counts_known,
        secondary=tuple(Answerer(answer.name, answer.why) for answer in columns.secondary),
        mappings=tuple(cache.marked(clip(mappings, within))),
        longest_call=process.longest_call,
        surroundings=surroundings,
        switches=switches,
    )
    return Snapshot(header, columns)


def open_kernel(wanted: bool | None) -> tuple[KernelMemory | None, str]:
    """(kernel memory, "") or (None, why not). *wanted*: True raises instead, False does not try.

    :raises MissingDependency: *wanted*, and it cannot be read.
    """
    if wanted is False:
        return None, "not asked for"
    problem = kcore_problem()
    if problem:
        # Known without drgn, whose import takes longer than a small process takes to read.
        if wanted:
            raise MissingDependency(problem)
        return None, problem
    try:
        from secondsight.live.read.kmem import KernelMemory

        return KernelMemory.live(), ""
    except ImportError:
        problem = "drgn is not installed: pip install 'secondsight[live]'"
        if wanted:
            raise MissingDependency(problem) from None
        return None, problem
    except MissingDependency as error:
        if wanted:
            raise
        return None, str(error)


def save(snapshot: Snapshot, path: Path) -> None:
    """Write *snapshot*, whole or not at all.

    :raises UsageError: it cannot be written there.
    """
    arrays: dict[str, Any] = {name: getattr(snapshot.columns, name) for name in STORED_COLUMNS}
    for index, answer in enumerate(snapshot.columns.secondary):
        arrays[f"young_{index}"], arrays[f"known_{index}"] = answer.young, answer.known
    # Sets in a fixed order; where keys are numbers, as of sizes, the encoder itself cannot.
    header = msgspec.to_builtins(snapshot.header, str_keys=True, order="deterministic")
    arrays["header"] = np.frombuffer(msgspec.json.encode(header), np.uint8)
    with atomicfile.open_atomic(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load(path: Path) -> Snapshot:
    """Read a snapshot.

    :raises InputError: not a snapshot, torn, or of a newer format.
    """
    try:
        # NumPy reads no more of it than its directory of contents names.
        with open_input(path, "a snapshot") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = msgspec.json.decode(arrays.pop("header").tobytes(), type=Header)
    except InputError:
        raise
    except Exception as error:  # NumPy's and zipfile's readers fail on damage in a dozen ways
        raise InputError(
            str(path), "", "not a snapshot of secondsight, or a torn one; secondsight snapshot makes one"
        ) from error
    if header.format > FORMAT:
        raise InputError(
            str(path), "header", f"format {header.format} is newer than this version reads ({FORMAT})"
        )
    return Snapshot(header, _columns(str(path), header, arrays))


def _orders(columns: dict[str, Any]) -> Any:
    """The orders of the folios of a snapshot that was taken without them."""
    pte = columns["pte"]
    mapped = bits.pte_present(pte) & ((pte & bits.PFN_MASK) != 0)
    return orders_of_runs(columns["address"], bits.pte_pfn(pte), columns["flags"], mapped)


def _columns(source: str, header: Header, arrays: dict[str, Any]) -> Columns:
    blocks = arrays.get("address")
    if blocks is None or blocks.ndim != 1:
        raise InputError(source, "address", "the column is missing")
    expected = Columns.empty(np.zeros(len(blocks), np.uint64))
    kept = {}
    for name in STORED_COLUMNS:
        model, column = getattr(expected, name), arrays.get(name)
        if column is None and name in _LATER:
            column = model
        if column is None or column.shape != model.shape or column.dtype != model.dtype:
            raise InputError(source, name, f"the column is missing or not {model.dtype}{list(model.shape)}")
        kept[name] = column
    if "order" not in arrays:
        kept["order"] = _orders(kept)
    if (blocks % np.uint64(PMD_SIZE)).any() or (np.diff(blocks.view(np.int64)) <= 0).any():
        raise InputError(source, "address", "blocks must ascend and be aligned to 2 MiB")
    answers = []
    for index, answerer in enumerate(header.secondary):
        young, known = arrays.get(f"young_{index}"), arrays.get(f"known_{index}")
        for mask in (young, known):
            if mask is None or mask.shape != expected.pte.shape or mask.dtype != np.bool_:
                raise InputError(source, f"young_{index}", "the masks of a notifier are missing or misshapen")
        assert young is not None and known is not None
        answers.append(Secondary(answerer.name, young, known, answerer.why))
    return Columns(**kept, counts_known=header.counts_known, secondary=tuple(answers))
