"""What samples hold, in one pass: looks, blocks, and what each channel could tell."""

from __future__ import annotations

import msgspec
import numpy as np

from secondsight.trace.sampled import CHANNELS, SampleProvenance
from secondsight.trace.samples import Samples

VERSION = 1


class ChannelSum(msgspec.Struct, kw_only=True):
    """Pages that a channel called *used*, *unused*, and *unknown* ones, over all looks but the first."""

    used: int = 0
    unused: int = 0
    unknown: int = 0


class SampledSpace(msgspec.Struct, kw_only=True):
    """A space's *blocks*, and those huge and pages present at the last look."""

    id: int
    name: str
    type: str
    blocks: int = 0
    huge: int = 0
    present: int = 0


class SampleSummary(msgspec.Struct, kw_only=True):
    """What ``secondsight trace info`` prints of samples."""

    version: int = VERSION
    path: str
    rows: int
    looks: int
    first_time: int
    last_time: int
    channels: dict[str, ChannelSum]
    spaces: list[SampledSpace]
    provenance: SampleProvenance


def summarise_samples(samples: Samples) -> SampleSummary:
    """Read *samples* once and count.

    :raises InputError: as :meth:`Samples.looks`.
    """
    sums = {name: ChannelSum() for name in CHANNELS}
    spaces = [SampledSpace(id=s.id, name=s.name, type=s.type) for s in samples.spaces]
    blocks: list[set[int]] = [set() for _ in spaces]
    looks, first, last = 0, 0, 0
    for look in samples.looks():
        if looks:
            for name, total in sums.items():
                total.used += int(look[f"{name}_used"].sum())
                total.unused += int(look[f"{name}_unused"].sum())
                total.unknown += int(look.unknown(name).sum())
        else:
            first = look.time
        looks, last = looks + 1, look.time
        where = look["space"]
        for number, space in enumerate(spaces):
            mine = where == number
            space.huge = int(np.count_nonzero(look["form"][mine]))
            space.present = int(look["present"][mine].sum())
            blocks[number].update(look["address"][mine].tolist())
    for space, addresses in zip(spaces, blocks, strict=True):
        space.blocks = len(addresses)
    return SampleSummary(
        path=str(samples.path), rows=samples.rows, looks=looks, first_time=first, last_time=last, channels=sums,
        spaces=[space for space in spaces if space.blocks or not space.id], provenance=samples.provenance,
    )  # fmt: skip
