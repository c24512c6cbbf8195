"""What ``explain`` answers: of each block, of each mapping, of the whole."""

from __future__ import annotations

from typing import Any

import msgspec


class AttemptsAhead(msgspec.Struct, frozen=True):
    """Collapses to *order* that khugepaged would try in a pass, and how many of them would make nothing. Each allocates a folio of that
    order, and unmaps its range from the secondary MMUs before it can be refused."""

    order: int
    begun: int
    refused: int


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """One 2 MiB block. Counts are pages; a channel's count of None is unknown, with ``*_unknown`` pages not seen.

    ``status`` is what khugepaged will answer (``ineligible``: it skips the mapping; ``unregistered``: it does not know the process);
    *known* False: ``others`` could come instead, for what *unread* names. *entries*: what is neither present nor swap, by its kind.
    *wasted*: in a pass that allocates a huge page and unmaps the block from the secondary MMUs for nothing; *wasted_if*: so, if a
    secondary MMU that could not be read used it. *bloat*: pages that a collapse would add, where it will come or may.
    """

    address: int
    mapping: str
    populated: int
    swapped: int
    shared: int
    pinned: int | None
    primary: int | None
    referenced: int | None
    secondary: int | None
    status: str
    known: bool
    reason: str
    others: tuple[str, ...] = ()
    at: int | None = None
    wasted: bool = False
    wasted_if: bool = False
    bloat: int = 0
    guest: int | None = None
    slot: int | None = None
    entries: dict[str, int] = {}
    unread: tuple[str, ...] = ()
    #: pages in the page cache, whoever maps them; None: not a file's, or not read
    cached: int | None = None
    #: what its next pass would try, by order; empty where the scan refuses it, or an order was not reached
    attempts: tuple[AttemptsAhead, ...] = ()


class Mapping(msgspec.Struct, frozen=True):
    """One mapping: *blocks* whole 2 MiB blocks, *empty* of them hold nothing; *refused* says why it is skipped, empty if it is not."""

    start: int
    end: int
    perms: str
    name: str
    blocks: int
    empty: int
    huge: int
    refused: str
    advice: str
    backing: str = "anonymous"
    #: the switch that allows or forbids it
    by: str = ""
    #: why MADV_COLLAPSE cannot make it huge either, as far as the mapping decides
    forced: str = ""
    #: bytes mapped here, and of the file in the page cache whoever maps them (None: not a file's, or not read); to the page, but for those
    #: that *blocks_only* names: they are of the whole 2 MiB blocks alone
    resident: int = 0
    cached: int | None = None
    blocks_only: tuple[str, ...] = ()
    #: bytes by the size of the folio, as ``sizes`` of the whole
    sizes: dict[str, int] = {}
    #: orders that khugepaged may collapse it to; empty where it is skipped
    orders: tuple[int, ...] = ()


class Totals(msgspec.Struct, frozen=True):
    """Sums over the snapshot. Sizes are bytes. *eligible_blocks*: in mappings that khugepaged looks at, and in those that hold huge pages
    already, though it skips them (*skipped_blocks*); *coverage*: huge / resident of them, None without any. *collapsible* blocks will
    become huge, which adds *bloat*; *collapsible_if* more may, which would add *bloat_if*."""

    mappings: int
    blocks: int
    eligible_blocks: int
    huge_blocks: int
    resident: int
    coverage: float | None
    collapsible: int
    collapsible_if: int
    bloat: int
    wasted: int
    wasted_if: int
    unknown: int
    by_status: dict[str, int]
    #: bytes mapped by the size of the folio that is mapped whole: ``4kB`` … ``2048kB``, ``PMD`` where a PMD maps it, ``part`` of one mapped
    #: in part; ``unread`` where page flags may not be read
    sizes: dict[str, int] = {}
    #: those of all blocks together
    attempts: tuple[AttemptsAhead, ...] = ()
    #: that a collapse of all those which may, beside those which will, would add
    bloat_if: int = 0
    skipped_blocks: int = 0

    @property
    def refused_collapses(self) -> int:
        """Collapses of any order that would be begun and refused."""
        return sum(each.refused for each in self.attempts)


class GuestRam(msgspec.Struct, frozen=True):
    """Bytes. *told_by*: how its mappings were found; *size*, *resident* of them to the page (*blocks_only*: what is resident is counted in
    whole 2 MiB blocks alone); *blocks* whole ones that hold anything; *huge*: mapped by a PMD on the host; *coverage*: the share of what
    the whole blocks hold that is huge, None where they hold nothing; *backing*: of its mappings; *levels*: bytes by the size of
    KVM's SPTE (empty where only kernel memory would tell); *pinned* pages, None unknown; *small_by*: blocks that are small, by who keeps
    them so."""

    told_by: str
    mappings: int
    size: int
    blocks: int
    resident: int
    huge: int
    coverage: float | None
    backing: tuple[str, ...]
    levels: dict[str, int]
    pinned: int | None
    small_by: dict[str, int]
    #: bytes and number of small mappings that are marked alike and not counted: VGA memory, ROMs
    beside: int = 0
    beside_mappings: int = 0
    blocks_only: bool = False


class Explanation(msgspec.Struct, frozen=True):
    """The whole answer, as ``--json`` prints it."""

    version: str
    schema: int
    pid: int
    name: str
    kernel: str
    source: str
    missing: str
    read_seconds: float
    rules: tuple[str, ...]
    open_points: tuple[str, ...]
    channels: dict[str, str]
    limits: dict[str, Any]
    totals: Totals
    mappings: tuple[Mapping, ...]
    blocks: tuple[Block, ...]
    longest_call_seconds: float = 0.0
    #: khugepaged knows the process; None: its list was not read
    registered: bool | None = None
    #: khugepaged's pace in words, and the switches that were supposed (``--if``)
    pace: str = ""
    supposed: tuple[str, ...] = ()
    #: of a process that runs a VM
    guest_ram: GuestRam | None = None
    #: what the kernel makes of its settings that their names do not say
    notes: tuple[str, ...] = ()
    #: which booted kernels answered as the rules say, in words
    evidence: str = ""


SCHEMA = 1
