"""Columns from pages as they lie, against pyarrow's decoding of the same file."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.trace import pages


def written(values, **options):
    out = io.BytesIO()
    schema = pa.schema([pa.field("x", pa.from_numpy_dtype(values.dtype), nullable=False)])
    options = {"compression": "none", "max_rows_per_page": 1 << 20, "data_page_size": 1 << 30} | options
    pq.write_table(pa.table([pa.array(values)], schema=schema), out, **options)
    data = out.getvalue()
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    return np.frombuffer(data, np.uint8), chunk


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 400),
    cardinality=st.integers(1, 256),
    runs=st.integers(1, 40),
    dtype=st.sampled_from([np.uint8, np.uint16, np.uint32]),
    rows_per_page=st.sampled_from([16, 100, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_dictionaries_of_every_width_and_any_mix_of_runs(rows, cardinality, runs, dtype, rows_per_page, seed):
    rng = np.random.default_rng(seed)
    alphabet = rng.integers(0, np.iinfo(dtype).max, cardinality, endpoint=True).astype(dtype)
    values = np.repeat(rng.choice(alphabet, rows), rng.integers(1, runs, rows, endpoint=True))
    file, chunk = written(values, use_dictionary=True, max_rows_per_page=rows_per_page)
    column = pages.column(file, chunk, dtype)
    np.testing.assert_array_equal(column.values, values)
    assert sorted(column.distinct) == np.unique(values).tolist()


@pytest.mark.parametrize("rows_per_page", [1000, 1 << 20])
def test_plain_values_are_a_view_of_the_file_where_they_are_one_page(rows_per_page):
    values = np.random.default_rng(0).integers(0, 1 << 63, 5000).astype(np.uint64)
    file, chunk = written(values, use_dictionary=False, max_rows_per_page=rows_per_page)
    column = pages.column(file, chunk, np.uint64)
    np.testing.assert_array_equal(column.values, values)
    assert np.shares_memory(column.values, file) == (rows_per_page > 5000) and column.distinct is None


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 700),
    bits=st.integers(0, 64),
    still=st.sampled_from([0.0, 0.5, 0.99]),
    rising=st.booleans(),
    rows_per_page=st.sampled_from([64, 100, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_differences_of_every_width(rows, bits, still, rising, rows_per_page, seed):
    rng = np.random.default_rng(seed)
    values = (
        rng.integers(0, 1 << bits, rows, np.uint64, endpoint=False) if bits else np.zeros(rows, np.uint64)
    )
    values[rng.random(rows) < still] = 0
    if rising:
        values = np.cumsum(values, dtype=np.uint64)
    file, chunk = written(
        values,
        use_dictionary=False,
        column_encoding={"x": "DELTA_BINARY_PACKED"},
        max_rows_per_page=rows_per_page,
    )
    column = pages.column(file, chunk, np.uint64)
    assert column is not None
    np.testing.assert_array_equal(column.values, values)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_differences_never_raise(data):
    values = np.cumsum(np.random.default_rng(0).integers(0, 1000, 400)).astype(np.uint64)
    file, chunk = written(values, use_dictionary=False, column_encoding={"x": "DELTA_BINARY_PACKED"})
    broken = file.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    column = pages.column(broken, chunk, np.uint64)
    assert column is None or column.values.size == 400


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {
            "use_dictionary": False,
            "column_encoding": {"x": "DELTA_BINARY_PACKED"},
            "data_page_version": "2.0",
        },
        {"use_dictionary": False, "data_page_version": "2.0", "column_encoding": {"x": "BYTE_STREAM_SPLIT"}},
    ],
)
def test_what_needs_a_decoder_is_left_to_one(options):
    file, chunk = written(np.arange(3000, dtype=np.uint64), **options)
    assert pages.column(file, chunk, np.uint64) is None


def test_more_than_256_values_are_left_to_a_decoder():
    file, chunk = written(np.arange(3000, dtype=np.uint32), use_dictionary=True)
    assert pages.column(file, chunk, np.uint32) is None


@settings(max_examples=200, deadline=None)
@given(data=st.data(), plain=st.booleans())
def test_damage_never_raises_and_never_gives_what_is_not_in_the_dictionary(data, plain):
    dtype = np.uint64 if plain else np.uint16
    values = np.random.default_rng(0).integers(0, 5, 300).astype(dtype)
    file, chunk = written(values, use_dictionary=not plain)
    broken = file.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, 120 if plain else 250))] = data.draw(st.integers(0, 255))
    column = pages.column(broken, chunk, dtype)
    assert column is None or (column.values.dtype == dtype and column.values.size == 300)
    if column is not None and not plain:
        assert np.isin(column.values, column.distinct).all()
