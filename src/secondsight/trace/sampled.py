"""What a row of samples says: one 2 MiB block at one look, its pages counted; and the provenance of such a file.

::

    a row: time, space, address | form, present, swapped, shared | each channel's counts                     | sizes
           the look  the block    PTEs or a PMD, pages           used  unused      since the look before      pages by folio order
                                                                 set   clear       its bits as they stand

    present = used + unused + unknown = set + clear + unread                 what is not counted could not be known

A bit that was set at the last look and still is says nothing of the time between: such a page counts as neither used nor unused, while
its bit counts as *set*, which is what khugepaged meets. At the first look of a block nothing is known of use.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from secondsight.errors import InputError
from secondsight.geometry import PMD_ORDER
from secondsight.trace.provenance import Provenance, contradiction

SAMPLES_KEY: Final = b"secondsight.samples"
SAMPLES_VERSION: Final = 1

#: Who can call a page used: the CPU's accessed bits, marks of the page itself (PG_referenced, PG_young), secondary MMUs, DAMON, and
#: soft-dirty bits (writes alone).
CHANNELS: Final = ("primary", "referenced", "secondary", "damon", "soft_dirty")
#: Of these have bits that khugepaged looks at.
BITS: Final = CHANNELS[:3]
#: Pages by the order of their folio, 0 to 9; the last: of folios that are mapped in part.
SIZES: Final = (*(f"order_{order}" for order in range(PMD_ORDER + 1)), "order_part")

#: A block's form: small pages, or mapped by a PMD.
TABLE, HUGE = 0, 1

SAMPLE_COLUMNS: Final[dict[str, type[np.unsignedinteger]]] = {
    "time": np.uint64,  # ns since the recording began; never decreases
    "space": np.uint16,  # an index into the provenance's spaces
    "address": np.uint64,  # the block's first byte, virtual, of a VM too: khugepaged's unit
    "form": np.uint8,
    "present": np.uint16,  # pages of memory that are mapped (no zero page); 512 of a huge block
    "swapped": np.uint16,
    "shared": np.uint16,  # of the present ones, those that others map too
    **{f"{name}_{word}": np.uint16 for name in CHANNELS for word in ("used", "unused")},
    **{f"{name}_{word}": np.uint16 for name in BITS for word in ("set", "clear")},
    **dict.fromkeys(SIZES, np.uint16),
}


class SampledChannel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel of the recording: whether it was *seen*, from where, or *why* not."""

    name: str
    seen: bool
    why: str = ""


class SamplingCost(msgspec.Struct, frozen=True, kw_only=True):
    """What looking took, measured. Seconds: *own_cpu* of ours in all looks, *looking* by the clock, *longest_call* of the calls that
    take the process's mmap lock; and of the process meanwhile *target_cpu*, *target_system* and *target_faults* (None: not readable)."""

    looks: int = 0
    seconds: float = 0.0
    own_cpu: float = 0.0
    looking: float = 0.0
    longest_call: float = 0.0
    target_cpu: float | None = None
    target_system: float | None = None
    target_faults: int | None = None


class SampleProvenance(Provenance, frozen=True, kw_only=True):
    """A trace's provenance, of samples: *interval* ns between two looks; *cleared*: what was written to clear_refs after each;
    *memory*: ``kernel memory`` or ``procfs``; *damon_samples*: DAMON's samples in one of its aggregations, 0 without."""

    interval: int = 0
    cleared: list[str] = msgspec.field(default_factory=list)
    memory: str = ""
    channels: list[SampledChannel] = msgspec.field(default_factory=list)
    damon_samples: int = 0
    cost: SamplingCost = SamplingCost()


def decode_samples(raw: bytes, source: str) -> SampleProvenance:
    """Read the JSON *raw* of the file *source*; :class:`InputError` if it is none of ours or from a later version."""
    try:
        version = msgspec.json.decode(raw, type=dict[str, object]).get("version")
        if version != SAMPLES_VERSION:
            raise InputError(
                source,
                "metadata",
                f"samples of version {version!r}, and this is a reader of version {SAMPLES_VERSION}; use a matching secondsight",
            )
        provenance = msgspec.json.decode(raw, type=SampleProvenance)
    except ValueError as error:
        raise InputError(source, "metadata", f"provenance is not readable: {error}") from None
    if problem := contradiction(provenance):
        raise InputError(source, "metadata", problem)
    if provenance.interval <= 0:
        raise InputError(source, "metadata", f"an interval of {provenance.interval} ns between looks")
    return provenance
