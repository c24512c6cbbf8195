"""Where a trace's addresses lie in the model: touched 2 MiB blocks only, their order kept.

    address  63        30 29         21 20      12 11     0
             | GiB       | block in GiB| page      | byte  |        of space s
                 |              |          |
       directory[first[s] + GiB - low[s]] = leaf                 0: nothing of this GiB is touched
                      slot = leaf * 2**18 + page in GiB          what is noted of a page while the trace is read: one look-up away
                      leaves[leaf, block in GiB] = row           rows of all spaces, one after another: row r is block
                                    page = row * 512 + page      numbers[r] of its space, and pages r*512 .. r*512+511

A process and those that it forks have the same blocks, whichever of them touches one: a fork's child begins with its parent's memory, at
the same addresses.

The first reading of a trace finds the blocks and the pages it touches. Unsigned indices: for signed ones Numba tests for a negative one
each time, which costs a third of the speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.errors import InputError, UsageError
from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR, PAGE_SHIFT, PMD_ORDER, PMD_SHIFT
from secondsight.native import allocating
from secondsight.replay.ahead import AHEAD, prefetch
from secondsight.replay.events import EventBatch, EventSource, PopulatedSource, WholeSource
from secondsight.trace.kinds import FIRST_VERB, Verb
from secondsight.trace.provenance import Space

HPAGE = HPAGE_PMD_NR
GIB_SHIFT = 30
#: Blocks of a GiB, and how many bits a page's number in it has.
LEAF = 1 << GIB_SHIFT - PMD_SHIFT
SLOT_SHIFT = GIB_SHIFT - PAGE_SHIFT
SLOTS = LEAF * HPAGE
#: GiBs that a trace may touch something in: 16 GiB for the slots, of which only those touched need memory.
MOST_LEAVES = 1 << 16
_TOO_WIDE = (
    f"the trace touches memory in more than {MOST_LEAVES:,} different GiB; cut it (secondsight trace cut)"
)
_FEW = 4096


class EventColumns(NamedTuple):
    """A batch's columns, as compiled code takes them; *space* is empty where there is only one."""

    address: npt.NDArray[np.uint64]
    kind: npt.NDArray[np.uint8]
    space: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.uint32]


class _Notes(NamedTuple):
    """What the first reading notes: *seen* int64[leaves * 512], accesses of each block; *used* int64[1], leaves given out; *touched*
    uint8[slots]; *origins* uint8[spaces, 32], which there are."""

    seen: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]
    touched: npt.NDArray[np.uint8]
    origins: npt.NDArray[np.uint8]


class Lookup(NamedTuple):
    """Address to row, for compiled code: low, first int64[spaces]; directory uint32[...], 0: no leaf;
    leaves int32[leaves * 512], -1: no such block."""

    low: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    directory: npt.NDArray[np.uint32]
    leaves: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Layout:
    """The blocks of a trace.

    spaces: as in the trace; first int64[spaces + 1]: rows of each space; numbers int64[rows]: true block numbers, rising in each space;
    total int64[rows]: accesses in the whole trace; slots int64[rows]: each row's first slot; touched uint8[slots]: which pages are
    accessed at all (bit 0), until an engine uses it for its own notes; origins: for each space the bits ``1 << origin`` of its accesses;
    has_verbs; lookup; family int64[spaces]: which spaces come from each other by forks, a number for each such group; born: the spaces
    that begin by a fork.
    """

    spaces: list[Space]
    first: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    total: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    touched: npt.NDArray[np.uint8]
    origins: list[int]
    has_verbs: bool
    events: int
    lookup: Lookup
    family: npt.NDArray[np.int64]
    born: frozenset[int]

    @property
    def rows(self) -> int:
        """Blocks of all spaces."""
        return len(self.numbers)

    def part(self, space: int) -> slice:
        """The rows of *space* (its index in ``spaces``), to cut any array of rows by."""
        return slice(int(self.first[space]), int(self.first[space + 1]))

    def touched_pages(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """int64[N]: the pages (all spaces' numbering) of rows *first* to *end* (exclusive) that are accessed at all, rising."""
        return np.asarray(_touched_pages(self.touched, self.slots, first, end))

    def pages(self, space: int, address: int, npages: int) -> tuple[int, int]:
        """The pages of *space* (its own numbering) that lie in the *npages* from byte *address* on: first, and end (exclusive)."""
        numbers = self.numbers[self.part(space)]

        def page_of(page: int) -> int:
            row = int(np.searchsorted(numbers, page >> PMD_ORDER))
            exact = row < len(numbers) and int(numbers[row]) == page >> PMD_ORDER
            return row * HPAGE + (page & BLOCK_MASK if exact else 0)

        start = address >> PAGE_SHIFT
        return page_of(start), page_of(start + npages)


@allocating
def _touched_pages(touched, slots, first, end):  # type: ignore[no-untyped-def]
    """See :meth:`Layout.touched_pages`."""
    out = np.empty((end - first) * HPAGE, np.int64)
    n = np.uint64(0)
    for row in range(first, end):
        slot = np.uint64(slots[row])
        for i in range(np.uint64(HPAGE)):
            out[n] = row * HPAGE + np.int64(i)
            n += np.uint64(touched[slot + i] & 1)
    return out[:n]


@allocating
def _discover(columns, plain, start, look, notes):  # type: ignore[no-untyped-def]
    """Note which pages are accessed (``touched``) and count the accesses of each block (``seen``), giving leaves out as GiBs appear.

    Returns len(address), or the index where another leaf is needed and there is none left. *plain*: one space, and every count 1.
    """
    address, kind, space, count = columns.address, columns.kind, columns.space, columns.counts
    seen, used, touched, origins = notes.seen, notes.used, notes.touched, notes.origins
    capacity = len(touched) >> SLOT_SHIFT
    many = len(space) > 0
    first = np.uint64(look.first[0] - look.low[0])
    for i in range(np.uint64(start), np.uint64(len(address))):
        prefetch(address, i + AHEAD)
        prefetch(kind, i + AHEAD)
        if kind[i] >= FIRST_VERB:
            continue
        a = np.uint64(address[i])
        s = np.uint64(0)
        if many:
            s = np.uint64(space[i])
            first = np.uint64(look.first[s] - look.low[s])
        at = first + (a >> np.uint64(GIB_SHIFT))
        leaf = np.uint64(look.directory[at])
        if leaf == 0:
            if used[0] == capacity:
                return i
            leaf = np.uint64(used[0])
            used[0] += 1
            look.directory[at] = np.uint32(leaf)
        slot = (leaf << np.uint64(SLOT_SHIFT)) | ((a >> np.uint64(PAGE_SHIFT)) & np.uint64(SLOTS - 1))
        touched[slot] = 1
        seen[slot >> np.uint64(PMD_ORDER)] += np.int64(1) if plain else np.int64(count[i])
        origins[s, np.uint64(kind[i] >> np.uint8(2))] = 1
    return len(address)


def discover(source: EventSource) -> Layout:
    """Read *source* once and lay it out, its population too if it has one.

    :raises UsageError: the trace holds no accesses, or they lie scattered over more than :data:`MOST_LEAVES` GiB.
    """
    if isinstance(source, PopulatedSource):
        source = WholeSource(source)
    spaces = list(source.spaces)
    low, high, has_verbs, rows, forks = _bounds(source, len(spaces))
    if not rows:
        raise UsageError("the trace holds no accesses: there is nothing to replay")
    if not spaces:
        raise UsageError(
            "the trace's provenance names no spaces, so its rows belong to none; record or convert it again"
        )
    gibs = (high >> GIB_SHIFT) - (low >> GIB_SHIFT) + 1
    lows = np.full(len(spaces), low >> GIB_SHIFT, np.int64)
    first = np.arange(len(spaces), dtype=np.int64) * gibs
    directory = np.zeros(len(spaces) * gibs, np.uint32)
    look = Lookup(lows, first, directory, np.zeros(0, np.int32))
    capacity = len(directory) + 1 if len(directory) < _FEW else 8
    seen = np.zeros(capacity * LEAF, np.int64)
    touched = np.zeros(capacity * SLOTS, np.uint8)
    used = np.ones(1, np.int64)  # leaf 0 stands for none
    origins = np.zeros((len(spaces), 32), np.uint8)
    many = len(spaces) > 1
    for batch in source.batches(("address", "kind")):
        start, n = 0, len(batch)
        read, plain = lean_columns(batch, many)
        while True:
            start = int(_discover(read, plain, start, look, _Notes(seen, used, touched, origins)))
            if start == n:
                break
            if int(used[0]) >= MOST_LEAVES:
                raise UsageError(_TOO_WIDE)
            seen, touched = _doubled(seen), _doubled(touched)
    family = _families(forks, len(spaces))
    seen, touched = _shared_blocks(family, look, _Notes(seen, used, touched, origins))
    layout = _compact(spaces, look, _Notes(seen, used, touched, origins), has_verbs, rows)
    return replace(layout, family=family, born=frozenset(child for _, child in forks))


def columns(batch: EventBatch, many_spaces: bool) -> EventColumns:
    """address, kind, space, count of *batch*; ``space`` is empty where there is only one."""
    space = batch["space"] if many_spaces else _NO_SPACE
    return EventColumns(batch["address"], batch["kind"], space, batch["count"])


def lean_columns(batch: EventBatch, many_spaces: bool) -> tuple[EventColumns, bool]:
    """:func:`columns`, and whether the batch is plain (one space, every count 1): its counts are then not decoded but left empty."""
    if many_spaces or batch.limits("count") != (1, 1):
        return columns(batch, many_spaces), False
    return EventColumns(batch["address"], batch["kind"], _NO_SPACE, _NO_COUNT), True


_NO_SPACE = np.zeros(0, np.uint16)
_NO_COUNT = np.zeros(0, np.uint32)


def _doubled(array: npt.NDArray) -> npt.NDArray:  # type: ignore[type-arg]
    out = np.zeros(2 * len(array), array.dtype)
    out[: len(array)] = array
    return out


def _bounds(source: EventSource, spaces: int) -> tuple[int, int, bool, int, list[tuple[int, int]]]:
    """Lowest and highest address, whether there are verbs, the number of rows; from statistics where there are some; the forks (parent,
    child).

    :raises InputError: a fork's child is no space of the trace, or its own parent.
    """
    low, high, verbs, rows = (1 << 64) - 1, 0, False, 0
    forks: list[tuple[int, int]] = []
    for batch in source.batches(()):
        limits = batch.limits("address") or _decoded(batch, "address")
        low, high = min(low, limits[0]), max(high, limits[1])
        if (batch.limits("kind") or _decoded(batch, "kind"))[1] >= FIRST_VERB:
            verbs = True
            at = np.flatnonzero(batch["kind"] == Verb.FORK)
            for row, parent, child in zip(
                (rows + at).tolist(), batch["space"][at].tolist(), batch["count"][at].tolist(), strict=True
            ):
                if child >= spaces or child == parent:
                    raise InputError(
                        "the trace",
                        f"row {row}",
                        f"space {parent} forks space {child}, and the trace has spaces 0 to {spaces - 1}"
                        if child != parent
                        else f"space {parent} forks itself",
                    )
                forks.append((parent, child))
        rows += len(batch)
    return low, high, verbs, rows, forks


def _families(forks: list[tuple[int, int]], spaces: int) -> npt.NDArray[np.int64]:
    """int64[spaces]: equal where *forks* (parent, child) connect two spaces."""
    family = np.arange(spaces)
    for parent, child in forks:
        family[family == family[child]] = family[parent]
    return family


def _shared_blocks(
    family: npt.NDArray[np.int64], look: Lookup, notes: _Notes
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Give each space the blocks of its *family*: bit 1 of a slot where it touches nothing itself. The notes' ``seen`` and ``touched``,
    which may have grown.

    :raises UsageError: more GiBs than :data:`MOST_LEAVES`.
    """
    seen, touched, used = notes.seen, notes.touched, notes.used
    gibs = len(look.directory) // len(family)
    directory = look.directory.reshape(len(family), gibs)
    for group in np.unique(family):
        members = np.flatnonzero(family == group)
        for gib in np.flatnonzero(directory[members].any(axis=0)).tolist() if len(members) > 1 else ():
            for space in members[directory[members, gib] == 0].tolist():
                if int(used[0]) >= MOST_LEAVES:
                    raise UsageError(_TOO_WIDE)
                if int(used[0]) == len(touched) // SLOTS:
                    seen, touched = _doubled(seen), _doubled(touched)
                directory[space, gib] = used[0]
                used[0] += 1
            leaves = directory[members, gib].tolist()
            parts = [touched[leaf * SLOTS : (leaf + 1) * SLOTS].reshape(LEAF, HPAGE) for leaf in leaves]
            whole = np.any([part.any(axis=1) for part in parts], axis=0)
            for part in parts:
                part[whole, 0] |= 2
    return seen, touched


def _decoded(batch: EventBatch, name: str) -> tuple[int, int]:
    column = batch[name]
    return int(column.min()), int(column.max())


def _compact(
    spaces: list[Space],
    look: Lookup,
    notes: _Notes,
    has_verbs: bool,
    events: int,
) -> Layout:
    """Leaves in order of first touch become rows in order of address."""
    used = int(notes.used[0])
    touched = notes.touched[: used * SLOTS]
    block_touched = np.logical_or.reduceat(
        touched.view(np.uint64), np.arange(0, len(touched) // 8, HPAGE // 8)
    )
    numbers: list[npt.NDArray[np.int64]] = []
    old: list[npt.NDArray[np.int64]] = []
    leaves = np.full(used * LEAF, -1, np.int32)
    starts, row = [0], 0
    gibs = len(look.directory) // len(spaces)
    for s in range(len(spaces)):
        entries = look.directory[s * gibs : (s + 1) * gibs]
        for gib in np.flatnonzero(entries).tolist():
            leaf = int(entries[gib])
            blocks = np.flatnonzero(block_touched[leaf * LEAF : (leaf + 1) * LEAF])
            numbers.append(((int(look.low[s]) + gib) << GIB_SHIFT - PMD_SHIFT) + blocks)
            old.append(leaf * LEAF + blocks)
            leaves[leaf * LEAF + blocks] = np.arange(row, row + len(blocks))
            row += len(blocks)
        starts.append(row)
    if not row:
        raise UsageError("the trace holds no accesses: there is nothing to replay")
    at = np.concatenate(old)
    return Layout(
        spaces=spaces,
        first=np.array(starts, np.int64),
        numbers=np.concatenate(numbers).astype(np.int64),
        total=notes.seen[at],
        slots=at * HPAGE,
        touched=touched,
        origins=[int(sum(1 << o for o in np.flatnonzero(line))) for line in notes.origins],
        has_verbs=has_verbs,
        events=events,
        lookup=look._replace(leaves=leaves),
        family=np.arange(len(spaces)),
        born=frozenset(),
    )
