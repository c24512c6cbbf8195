"""Where a trace comes from, and what its source could not see.

The provenance travels in the Parquet file's metadata under ``secondsight.trace`` as JSON. It names no
machine: the same recording made elsewhere under the same conditions has the same provenance.
"""

from __future__ import annotations

import platform
from typing import Annotated, Final, Literal

import msgspec

import secondsight
from secondsight.errors import InputError
from secondsight.geometry import PAGE_SIZE

KEY: Final = b"secondsight.trace"
VERSION: Final = 1

#: A number that counts something, or ns: from 0 up, and what a signed 64-bit integer holds.
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """One address space of a trace: a process (virtual addresses) or a VM (guest-physical ones)."""

    id: int
    name: str
    type: Literal["process", "vm"] = "process"
    parent: int | None = None  # the space that forked it, where that is known


#: What a trace without walks does not hold, among :attr:`Provenance.unseen`.
PAGE_WALKS = "page walks"


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace's ``time`` counts. The unit is always ns; *meaning* says what one ns stands for."""

    unit: Literal["ns"] = "ns"
    meaning: str = "unknown"


class Walks(msgspec.Struct, frozen=True, kw_only=True):
    """What a space's accesses would have walked, by the reference TLB (``replay.tlb.TlbConfig()``), counted where their order was seen.

    accesses: to data, in all; counted: those in the windows that were looked at. By block (address / 2 MiB), of the counted ones: walks had
    every page been small, and had every block been huge.
    """

    space: Count
    accesses: Count
    counted: Count
    block: list[Count]
    small: list[Count]
    huge: list[Count]


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a reader must know about a trace to judge what is concluded from it."""

    version: int = VERSION
    source: str  # lackey, perf, drmemtrace, damo, record-run, record-vm, record-pid, synthetic, cut, merged
    command: list[str] = []  # of the program or VM that was recorded
    clock: Clock = Clock()
    spaces: list[Space] = []
    unseen: list[str] = []  # what the source could not see: "page walks", "DMA", ...
    quantum: Count = 0  # ns; 0: every access is a row of its own
    arch: str = msgspec.field(default_factory=platform.machine)
    page_size: int = PAGE_SIZE
    tool: str = f"secondsight {secondsight.__version__}"
    seed: int | None = None
    input_hash: str | None = None  # sha256 of the bytes that were converted
    content_hash: str | None = None  # sha256 over the columns; see TraceWriter
    clock_held: Count = 0  # rows whose source clock ran backwards and was held at the latest time seen
    dropped: dict[str, Count] = {}  # accesses left out, by reason
    notes: list[str] = []
    walks: list[Walks] = []
    cpu_seconds: float | None = None  # that the command took by itself, without whoever records
    cpu_thp: str = ""  # transparent_hugepage/enabled while it did


def encode(provenance: Provenance) -> bytes:
    """*provenance* as JSON."""
    return msgspec.json.encode(provenance)


def decode(raw: bytes | None, source: str) -> Provenance:
    """Read the JSON *raw* of the file *source*; :class:`InputError` if it is none of ours or from a later version."""
    if raw is None:
        raise InputError(
            source, "metadata", "no secondsight.trace key: not a trace; `secondsight convert` makes one"
        )
    try:
        head = msgspec.json.decode(raw, type=dict[str, object])
        version = head.get("version")
        if version != VERSION:
            raise InputError(
                source,
                "metadata",
                f"format version {version!r}, and this is a reader of version {VERSION}; use a matching secondsight",
            )
        provenance = msgspec.json.decode(raw, type=Provenance)
    except ValueError as error:  # msgspec raises these, also for bytes that are no UTF-8
        raise InputError(source, "metadata", f"provenance is not readable: {error}") from None
    if problem := contradiction(provenance):
        raise InputError(source, "metadata", problem)
    return provenance


def contradiction(provenance: Provenance) -> str:
    """What in *provenance* cannot be, whose types are right; empty where all can."""
    spaces = provenance.spaces
    if [space.id for space in spaces] != list(range(len(spaces))):
        return "spaces must be numbered 0, 1, 2 … in order"
    for space in spaces:
        # A chain of parents is no longer than there are spaces, unless it goes in a circle.
        ancestor, steps = space.parent, 0
        while ancestor is not None:
            if not 0 <= ancestor < len(spaces):
                return (
                    f"space {ancestor}, a parent of space {space.id}, is not among the {len(spaces)} spaces"
                )
            if (steps := steps + 1) > len(spaces) or ancestor == space.id:
                return f"space {space.id} is its own parent, or a parent of its is"
            ancestor = spaces[ancestor].parent
    if provenance.arch == "x86_64" and provenance.page_size != PAGE_SIZE:
        return f"pages of {provenance.page_size} bytes; those of x86_64 have {PAGE_SIZE}"
    if provenance.page_size < PAGE_SIZE or provenance.page_size & (provenance.page_size - 1):
        return f"pages of {provenance.page_size} bytes; a page has 4096, 8192, 16384 …"
    return ""


def with_fields(provenance: Provenance, **fields: object) -> Provenance:
    """A copy of *provenance* with *fields* replaced."""
    return msgspec.structs.replace(provenance, **fields)
