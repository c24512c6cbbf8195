"""What the rows of a file of ours are: a trace's events, or samples; the columns as Arrow has them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from secondsight.trace.kinds import COLUMNS
from secondsight.trace.provenance import KEY, Provenance, decode
from secondsight.trace.sampled import SAMPLE_COLUMNS, SAMPLES_KEY, SampleProvenance, decode_samples


# Columns are declared NOT NULL: without definition levels pyarrow decodes about 1.5 times as fast
# (docs/performance.md, "Trace reading").
def _schema(columns: dict[str, type[np.unsignedinteger]]) -> pa.Schema:
    types = {name: pa.from_numpy_dtype(np.dtype(dtype)) for name, dtype in columns.items()}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


SCHEMA: Final = _schema(COLUMNS)
SAMPLE_SCHEMA: Final = _schema(SAMPLE_COLUMNS)


class RowForm(NamedTuple):
    """What the rows of a file are: its columns, and the metadata key under which its provenance stands."""

    columns: dict[str, type[np.unsignedinteger]]
    schema: pa.Schema
    key: bytes
    called: str

    @classmethod
    def of(cls, provenance: Provenance) -> RowForm:
        """That of a file with *provenance*."""
        return SAMPLES if isinstance(provenance, SampleProvenance) else EVENTS

    def decode(self, raw: bytes | None, source: str) -> Provenance:
        """The provenance in *raw*.

        :raises InputError: as ``provenance.decode``.
        """
        return decode_samples(raw or b"", source) if self is SAMPLES else decode(raw, source)


EVENTS: Final = RowForm(COLUMNS, SCHEMA, KEY, "a trace")
SAMPLES: Final = RowForm(SAMPLE_COLUMNS, SAMPLE_SCHEMA, SAMPLES_KEY, "samples")


def other_columns(found: pa.Schema, ours: bool) -> str:
    """That a file has the columns *found* and not a trace's, and the mend; *ours*: a trace's provenance is with them all the same."""
    wanted, has = (
        ", ".join(f"{name} {kind}" for name, kind in zip(schema.names, schema.types, strict=True))
        for schema in (SCHEMA, found)
    )
    mend = (
        "its provenance is a trace's, so another program wrote it anew: let that write the columns in these types and order"
        if ours
        else "`secondsight convert` makes a trace of such tables"
    )
    return f"a trace has {wanted}; this has {has[:300]} ({mend})"
