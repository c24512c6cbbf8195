"""What a reader of figures should know of the trace they were made from: how much of what was seen is not in it, and how it began.

seen = accesses of the trace + left out (``dropped``, by reason)        told from a twentieth on
"""

from __future__ import annotations

from typing import Final

from secondsight.trace.provenance import Provenance

#: The share of what was seen from which on what was left out is told.
CONSIDERABLE: Final = 0.05
#: Reasons that say nothing of a space's memory being used: what they leave out is missing from no figure.
NOT_USE: Final = frozenset({
    "accesses to device registers",
    "accesses to memory that is not RAM (firmware, video)",
    "addresses outside the space",
    "lines of other events",
    "prefetches and flushes",
    "samples that are neither load, store nor exec",
})  # fmt: skip


def left_out(provenance: Provenance, accesses: int) -> str:
    """What of the use that was seen is missing from a trace of *accesses*, with its share; empty where that is little."""
    missing = {reason: number for reason, number in provenance.dropped.items() if reason not in NOT_USE}
    number = sum(missing.values())
    if not number or number < CONSIDERABLE * (number + accesses):
        return ""
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in missing.items())
    return (
        f"{number / (number + accesses):.0%} of what was seen was left out of the trace ({reasons}; {accesses:,} accesses are in it): "
        "no figure knows of it"
    )


def caveats(provenance: Provenance, accesses: int) -> list[str]:
    """Notes on figures of a trace with *provenance*, which holds *accesses*."""
    notes = [note] if (note := left_out(provenance, accesses)) else []
    if provenance.source == "record-pid":
        notes.append(
            "the process was running when the recording began, and a replay takes its memory as empty then: what it held and was not seen "
            "to use is missing, and its first access to a block counts as the block's first touch"
        )
    return notes


__all__ = ["CONSIDERABLE", "NOT_USE", "caveats", "left_out"]
