"""What a comparison found, as plain data: what ``--json`` writes, the page draws, and nothing of the engines.

    Results
      provenance, answer, metrics (definitions), verdicts (the kernel's rules)
      blocks     one entry a block: space, number, accesses, pages populated        (B blocks)
      rows       one a combination of policy and rules: figures, series, curve, channels (B x T), fate, events

Arrays travel as :class:`Packed`: zlib'd, base64, little endian, so that tens of thousands of blocks stay small in JSON.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import InputError
from secondsight.geometry import ANON_ORDERS

#: Changed whenever a reader of the older one could misread the newer.
SCHEMA: Final = 2

Dtype = Literal["u1", "i2", "i4", "f4", "f8"]
CHANNELS: Final = ("primary", "referenced", "secondary")


class Packed(msgspec.Struct, frozen=True):
    """An array: *dtype* little endian, *shape* row major, *data* base64 of its zlib stream."""

    dtype: Dtype
    shape: list[int]
    data: str

    def array(self) -> npt.NDArray[Any]:
        """The array, read-only.

        :raises ValueError: data that is damaged or does not fit the shape.
        """
        if min(self.shape, default=0) < 0:
            raise ValueError(f"damaged array: nothing has the shape {self.shape}")
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        try:
            # No more is unpacked than the shape has room for.
            raw = zlib.decompressobj().decompress(
                base64.b64decode(self.data, validate=True), min(size, 1 << 40) + 1
            )
        except zlib.error as error:
            raise ValueError(f"damaged array: {error}") from None
        if len(raw) != size:
            raise ValueError(f"damaged array: {len(raw)} bytes do not fit the shape {self.shape}")
        return np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)


def pack(array: npt.ArrayLike, dtype: Dtype) -> Packed:
    """*array* as *dtype*; the same array always packs to the same text."""
    values = np.ascontiguousarray(np.asarray(array), dtype=np.dtype(dtype).newbyteorder("<"))
    text = base64.b64encode(zlib.compress(values.tobytes(), 6)).decode()
    return Packed(dtype, list(values.shape), text)


class Metric(msgspec.Struct, frozen=True):
    """One figure's definition. *better*: which way is good, or neither; *form*: how it is printed."""

    key: str
    title: str
    form: Literal["count", "share", "bytes", "seconds", "index"]
    better: Literal["more", "less", "neither"]
    definition: str


class VerdictRule(msgspec.Struct, frozen=True):
    """One thing that can befall a block: the tracepoint's own string (or our word), what it means, and where the kernel says so."""

    code: str
    meaning: str
    cite: str = ""
    good: bool = False


class ResultsOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the results come from: enough to make them again."""

    tool: str
    command: str = ""
    trace: str
    trace_hash: str = ""
    source: str = ""
    unseen: list[str] = []
    accesses: int = 0
    rows: int = 0
    seconds: float = 0.0
    time_scale: float = 1.0
    config: dict[str, Any] = {}
    seed: int | None = None
    notes: list[str] = []


class BlockColumns(msgspec.Struct, frozen=True):
    """Arrays of B: *space* i4 (index), *number* f8 (address / 2 MiB), *accesses* f8, *populated* i4 (pages)."""

    space: Packed
    number: Packed
    accesses: Packed
    populated: Packed


class Attempts(msgspec.Struct, frozen=True):
    """Attempts to collapse to one order: *begun*, of which *refused* made nothing; the folios allocated for all of them, and the ranges
    that the notifiers were told to drop."""

    begun: int
    refused: int
    allocations: int
    invalidations: int


class DecisionColumns(msgspec.Struct, frozen=True):
    """Arrays of E, by block, then time: what was decided about a block and what each channel said then.

    block i4; first, last f4: seconds, the same answer *count* i4 times between them; verdict u1: index into the results' verdicts;
    primary, referenced, secondary i2: pages young by each at the first of them, -1 unknown. order i2: of the largest collapse made, or of
    the last one tried, -1 none; refused i4: attempts of any order that were refused at all of them. Neither in files of before 2026-12.
    """

    block: Packed
    first: Packed
    last: Packed
    count: Packed
    verdict: Packed
    primary: Packed
    referenced: Packed
    secondary: Packed
    order: Packed | None = None
    refused: Packed | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One combination. Figures by metric key, None where it is not known.

    options: the policy's own, where not the default; knobs: what was varied to get this row. seconds f8[T], huge i4[T], bloat f8[T]
    (bytes): after each wake-up; and so i4[T]: hot, huge blocks that hold a hot page; passes, full scans of khugepaged so far; wasted,
    visits that ended in a refused collapse so far; refused, refused collapses of any order so far; guest_faults so far. curve: (share of
    footprint made huge, share of accesses covered).
    fate f4[B]: when each block first became huge, seconds, NaN never. split f4[B]: when it last was split, NaN never.
    channels: by name, i2[B, C], the most pages young in each of C equal parts of the run, -1 unknown. refusals: i4[B, C], attempts that
    were refused in each. attempts: by order, in figures; what was not kept is left out. not_run: why this combination could not be run,
    and so has no figures.
    """

    label: str
    policy: str
    rules: str
    options: dict[str, Any] = {}
    knobs: dict[str, float | str] = {}
    metrics: dict[str, float | None]
    seconds: Packed
    huge: Packed
    bloat: Packed
    hot: Packed | None = None
    passes: Packed | None = None
    wasted: Packed | None = None
    refused: Packed | None = None
    guest_faults: Packed | None = None
    curve: list[tuple[float, float]] = []
    fate: Packed | None = None
    split: Packed | None = None
    channels: dict[str, Packed] = {}
    refusals: Packed | None = None
    attempts: dict[str, Attempts] = {}
    events: DecisionColumns | None = None
    not_run: str = ""


#: (policy and rules) -> (value of the knob, figures), values rising.
Sensitivity = Mapping[str, Sequence[tuple[float, Mapping[str, float | None]]]]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole comparison: of one trace, or over many (then there are no blocks, and the figures are sums or means over the traces).

    oracle: the best utility curve there is. sensitivity: by knob. spread: by metric, then row:
    (share of the traces below, value) and (1, the most).
    """

    schema: int = SCHEMA
    title: str
    answer: str
    provenance: ResultsOrigin
    metrics: list[Metric]
    spaces: list[str]
    rows: list[Row]
    blocks: BlockColumns
    verdicts: list[VerdictRule] = []
    oracle: list[tuple[float, float]] = []
    sensitivity: dict[str, Sensitivity] = {}
    spread: dict[str, dict[str, list[tuple[float, float]]]] = {}


def finite(value: float | None) -> float | None:
    """*value*, or None where it is no number: JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


def encode(results: Results) -> bytes:
    """*results* as JSON, the same bytes for the same results."""
    return msgspec.json.encode(results, order="deterministic")


def decode(raw: bytes, source: str) -> Results:
    """Read what :func:`encode` wrote.

    :raises InputError: *raw* is no results file, of samples, or of another schema version.
    """
    try:
        head = msgspec.json.decode(raw, type=dict[str, Any])
        if "samples" in head and "hot" in head:
            raise InputError(
                source,
                "",
                "results of samples, whose figures are ranges: no command reads them again; give `compare` the samples themselves",
            )
        if (version := head.get("schema")) != SCHEMA:
            other = "" if "rows" in head else "; it has no rows: `compare -o FILE` writes results"
            raise InputError(
                source, "schema", f"results of schema version {version!r}; this reads version {SCHEMA}{other}"
            )
        results = msgspec.json.decode(raw, type=Results)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(source, "", f"not a results file: {error}") from None
    _check(results, source)
    return results


def _check(results: Results, source: str) -> None:
    """Refuse what is well-formed and fits nothing: damaged arrays, series of unequal lengths, orders that there are none of.

    :raises InputError: says where.
    """
    for name, each in (
        ("blocks", results.blocks),
        *((f"rows[{i}]", row) for i, row in enumerate(results.rows)),
    ):
        lengths = set()
        for key in each.__struct_fields__:
            value = getattr(each, key)
            for where, packed in _arrays(value, f"{name}.{key}"):
                try:
                    packed.array()
                except ValueError as error:
                    raise InputError(source, where, str(error)) from None
            if isinstance(value, Packed) and (name == "blocks" or key in _SERIES):
                lengths.add(value.shape[0] if value.shape else -1)
        if len(lengths) > 1:
            raise InputError(
                source,
                name,
                f"its columns have {', '.join(map(str, sorted(lengths)))} values: not a results file",
            )
    for i, row in enumerate(results.rows):
        for order in row.attempts:
            if order not in map(str, ANON_ORDERS):
                raise InputError(source, f"rows[{i}].attempts", f"there is no order {order!r}")
    for knob, curves in results.sensitivity.items():
        if not any(curves.values()):
            raise InputError(source, f"sensitivity of {knob!r}", "holds no value")


_SERIES = ("seconds", "huge", "bloat", "hot", "passes", "wasted", "refused", "guest_faults")


def _arrays(value: Any, where: str) -> Iterator[tuple[str, Packed]]:
    if isinstance(value, Packed):
        yield where, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _arrays(each, f"{where}.{key}")
    elif isinstance(value, DecisionColumns):
        for key in value.__struct_fields__:
            yield from _arrays(getattr(value, key), f"{where}.{key}")
