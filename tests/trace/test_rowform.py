"""What the rows of a file are: a trace's events or samples, as their provenance says."""

import numpy as np
import pyarrow as pa
import pytest

from secondsight.errors import InputError
from secondsight.trace.kinds import COLUMNS
from secondsight.trace.provenance import Provenance, encode
from secondsight.trace.rowform import EVENTS, SAMPLES, SCHEMA, RowForm, other_columns
from secondsight.trace.sampled import SampleProvenance


def test_the_columns_are_the_formats_in_their_order_and_never_null():
    assert SCHEMA.names == ["time", "space", "address", "kind", "count"] == list(COLUMNS)
    assert [str(kind) for kind in SCHEMA.types] == ["uint64", "uint16", "uint64", "uint8", "uint32"]
    for form in (EVENTS, SAMPLES):
        assert not any(field.nullable for field in form.schema)
        assert [np.dtype(kind) for kind in form.columns.values()] == [
            kind.to_pandas_dtype() for kind in form.schema.types
        ]
    assert EVENTS.key != SAMPLES.key


def test_a_provenance_says_which_it_is_and_is_read_by_its_own_form():
    events, samples = Provenance(source="x"), SampleProvenance(source="x", interval=10**9)
    assert RowForm.of(events) is EVENTS and RowForm.of(samples) is SAMPLES
    assert EVENTS.decode(encode(events), "t") == events
    assert SAMPLES.decode(encode(samples), "t") == samples
    with pytest.raises(InputError, match=r"^t: metadata: "):
        SAMPLES.decode(None, "t")
    with pytest.raises(InputError, match=r"^t: metadata: no secondsight\.trace key"):
        EVENTS.decode(None, "t")


def test_other_columns_are_said_beside_a_traces_with_the_mend():
    theirs = pa.schema([("address", pa.float64()), ("when", pa.string())])
    ours = "a trace has time uint64, space uint16, address uint64, kind uint8, count uint32; this has address double, when string"
    assert other_columns(theirs, False) == f"{ours} (`secondsight convert` makes a trace of such tables)"
    assert other_columns(theirs, True).startswith(f"{ours} (its provenance is a trace's")
    many = pa.schema([(f"column{i}", pa.int8()) for i in range(100)])
    assert len(other_columns(many, False)) < 600
