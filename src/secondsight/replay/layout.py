"""Where a trace's addresses lie in the model: touched 2 MiB blocks only, their order kept.

    address  63        30 29         21 20      12 11     0
             | GiB       | block in GiB| page      | byte  |        of space s
                 |              |          |
       directory[first[s] + GiB - low[s]] = leaf
                      leaves[leaf, block in GiB] = row           rows of all spaces, one after another: row r is block
                                    page = row * 512 + page      numbers[r] of its space, and pages r*512 .. r*512+511

The first reading of a trace finds the blocks; a byte for each page of them says how it is touched, where a replay must fill memory
before it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from secondsight.errors import UsageError
from secondsight.replay.events import Batch, Source
from secondsight.trace.kinds import FIRST_VERB
from secondsight.trace.provenance import Space

HPAGE = 512
LEAF = 512
GIB_SHIFT = 30


class Lookup(NamedTuple):
    """Address to row, for compiled code: low, first int64[spaces]; directory int32[...], 0: no leaf;
    leaves int32[leaves * 512], -1: no such block."""

    low: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    directory: npt.NDArray[np.int32]
    leaves: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Layout:
    """The blocks of a trace.

    spaces: as in the trace; first int64[spaces + 1]: rows of each space; numbers int64[rows]: true block numbers, rising in each space;
    total int64[rows]: accesses in the whole trace; touched uint8[rows * 512] or None: which pages are accessed at all; origins:
    for each space the bits ``1 << origin`` of its accesses; has_verbs; lookup.
    """

    spaces: list[Space]
    first: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    total: npt.NDArray[np.int64]
    touched: npt.NDArray[np.uint8] | None
    origins: list[int]
    has_verbs: bool
    events: int
    lookup: Lookup

    @property
    def rows(self) -> int:
        """Blocks of all spaces."""
        return len(self.numbers)

    def part(self, space: int) -> slice:
        """The rows of *space*."""
        return slice(int(self.first[space]), int(self.first[space + 1]))

    def pages(self, space: int, address: int, npages: int) -> tuple[int, int]:
        """The pages of *space* (its own numbering) that lie in the *npages* from byte *address* on: first and end."""
        numbers = self.numbers[self.part(space)]

        def page_of(page: int) -> int:
            row = int(np.searchsorted(numbers, page >> 9))
            exact = row < len(numbers) and int(numbers[row]) == page >> 9
            return row * HPAGE + (page & 511 if exact else 0)

        start = address >> 12
        return page_of(start), page_of(start + npages)


@njit(cache=True, nogil=True)
def _discover(address, kind, space, count, many_spaces, start, look, seen, found, used, touched, origins):  # type: ignore[no-untyped-def]
    """Count the accesses of each block (``seen``), giving leaves out as GiBs appear.

    Returns len(address), or the index where another leaf is needed and there is none left. ``touched`` of length 0 is not kept.
    """
    keep = len(touched) > 0
    room = len(seen) // 512
    s = 0
    for i in range(start, len(address)):
        if kind[i] >= 0x80:
            continue
        if many_spaces:
            s = space[i]
        a = address[i]
        at = look.first[s] + np.int64(a >> np.uint64(30)) - look.low[s]
        leaf = np.int64(look.directory[at])
        if leaf == 0:
            if used[0] == room:
                return i
            leaf = used[0]
            used[0] += 1
            look.directory[at] = leaf
        block = (leaf << 9) | np.int64((a >> np.uint64(21)) & np.uint64(511))
        seen[block] += count[i]
        found[block] = True
        origins[s, kind[i] >> 2] = 1
        if keep:
            touched[(block << 9) | np.int64((a >> np.uint64(12)) & np.uint64(511))] = 1
    return len(address)


def discover(source: Source, *, pages: bool = False) -> Layout:
    """Read *source* once and lay it out; *pages*: keep which pages are touched.

    :raises UsageError: the trace holds no accesses.
    """
    spaces = list(source.spaces)
    low, high, has_verbs, rows = _bounds(source, len(spaces))
    if not rows:
        raise UsageError("the trace holds no accesses: there is nothing to replay")
    gibs = (high >> GIB_SHIFT) - (low >> GIB_SHIFT) + 1
    lows = np.full(len(spaces), low >> GIB_SHIFT, np.int64)
    first = np.arange(len(spaces), dtype=np.int64) * gibs
    directory = np.zeros(len(spaces) * gibs, np.int32)
    look = Lookup(lows, first, directory, np.zeros(0, np.int32))
    seen = np.zeros(8 * LEAF, np.int64)
    found = np.zeros(8 * LEAF, np.bool_)
    touched = np.zeros(8 * LEAF * HPAGE if pages else 0, np.uint8)
    used = np.ones(1, np.int64)  # leaf 0 stands for none
    origins = np.zeros((len(spaces), 32), np.uint8)
    many = len(spaces) > 1
    for batch in source.batches(("address",)):
        start, n = 0, len(batch)
        args = columns(batch, many)
        while True:
            start = int(_discover(*args, many, start, look, seen, found, used, touched, origins))
            if start == n:
                break
            seen, found = _doubled(seen), _doubled(found)
            touched = _doubled(touched)
    return _compact(
        spaces, lows, first, directory, seen, found, touched if pages else None, origins, has_verbs, rows
    )


def columns(
    batch: Batch, many_spaces: bool
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """address, kind, space, count of *batch*; ``space`` is empty where there is only one."""
    space = batch["space"] if many_spaces else _NO_SPACE
    return batch["address"], batch["kind"], space, batch["count"]


_NO_SPACE = np.zeros(0, np.uint16)


def _doubled(array: npt.NDArray) -> npt.NDArray:  # type: ignore[type-arg]
    out = np.zeros(2 * len(array), array.dtype)
    out[: len(array)] = array
    return out


def _bounds(source: Source, spaces: int) -> tuple[int, int, bool, int]:
    """Lowest and highest address, whether there are verbs, and the number of rows; from statistics where there are some."""
    low, high, verbs, rows = (1 << 64) - 1, 0, False, 0
    for batch in source.batches(()):
        rows += len(batch)
        limits = batch.limits("address") or _decoded(batch, "address")
        low, high = min(low, limits[0]), max(high, limits[1])
        verbs |= (batch.limits("kind") or _decoded(batch, "kind"))[1] >= FIRST_VERB
    return low, high, verbs, rows


def _decoded(batch: Batch, name: str) -> tuple[int, int]:
    column = batch[name]
    return int(column.min()), int(column.max())


def _compact(
    spaces: list[Space],
    lows: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    directory: npt.NDArray[np.int32],
    seen: npt.NDArray[np.int64],
    found: npt.NDArray[np.bool_],
    touched: npt.NDArray[np.uint8] | None,
    origins: npt.NDArray[np.uint8],
    has_verbs: bool,
    events: int,
) -> Layout:
    """Leaves in order of first touch become rows in order of address."""
    numbers: list[npt.NDArray[np.int64]] = []
    old: list[npt.NDArray[np.int64]] = []
    leaves = np.full(len(seen), -1, np.int32)
    starts, row = [0], 0
    gibs = len(directory) // len(spaces)
    for s in range(len(spaces)):
        entries = directory[s * gibs : (s + 1) * gibs]
        for gib in np.flatnonzero(entries).tolist():
            leaf = int(entries[gib])
            blocks = np.flatnonzero(found[leaf * LEAF : (leaf + 1) * LEAF])
            numbers.append(((int(lows[s]) + gib) << 9) + blocks)
            old.append(leaf * LEAF + blocks)
            leaves[leaf * LEAF + blocks] = np.arange(row, row + len(blocks))
            row += len(blocks)
        starts.append(row)
    if not row:
        raise UsageError("the trace holds no accesses: there is nothing to replay")
    at = np.concatenate(old)
    pages = None
    if touched is not None:
        pages = touched.reshape(-1, HPAGE)[at].reshape(-1)
    return Layout(
        spaces=spaces,
        first=np.array(starts, np.int64),
        numbers=np.concatenate(numbers).astype(np.int64),
        total=seen[at],
        touched=pages,
        origins=[int(sum(1 << o for o in np.flatnonzero(line))) for line in origins],
        has_verbs=has_verbs,
        events=events,
        lookup=Lookup(lows, first, directory, leaves),
    )
