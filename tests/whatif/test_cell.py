"""A cell: bytes in, bytes out, and whatever is wrong with it as one line in the outcome."""

import io
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
import zstandard

from secondsight.report import decode
from secondsight.report.table import KEY
from secondsight.whatif import spec as specs
from secondsight.whatif.cell import COLUMNS, Outcome, replay, table, work
from support import sweeps


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The cells of a sweep of one trace."""
    base = tmp_path_factory.mktemp("cells")
    return specs.plan(specs.read(sweeps.spec(base, 1)), base)[0]


def outcome(cell):
    """What a worker gives back."""
    return msgspec.msgpack.decode(work(msgspec.msgpack.encode(cell)), type=Outcome)


def test_a_cell_becomes_a_line_for_each_row_and_the_results_whole(cells):
    for cell in cells:
        done = outcome(cell)
        assert (done.cell, done.error) == (cell.id, "") and done.seconds > 0 and ":" in done.worker
        lines = pq.read_table(io.BytesIO(done.table))
        assert lines.schema.equals(COLUMNS) and lines.column("id").to_pylist() == [
            entry.id for entry in cell.entries
        ]
        results = decode(zstandard.decompress(done.details), "details")
        assert [row.label for row in results.rows] == lines.column("label").to_pylist()
        assert [row.metrics["coverage"] for row in results.rows] == lines.column("coverage").to_pylist()


def test_a_knob_that_a_policy_sets_is_the_one_in_its_line(cells):
    values = {}
    for cell in cells:
        lines = pq.read_table(io.BytesIO(table(cell, replay(cell))))
        for knobs, none in zip(
            lines.column("knobs").to_pylist(), lines.column("max_ptes_none").to_pylist(), strict=True
        ):
            values.setdefault(knobs, set()).add(none)
    assert values['{"max_ptes_none":0.0}'] == {0} and values['{"max_ptes_none":509.0}'] == {509}


def test_the_same_cell_makes_the_same_bytes(cells):
    made = [table(cells[0], replay(cells[0])) for _ in range(2)]
    assert made[0] == made[1]
    about = msgspec.json.decode(pq.read_schema(io.BytesIO(made[0])).metadata[KEY])
    assert about["provenance"]["trace"] == cells[0].trace


def test_another_version_and_a_trace_that_is_gone_are_one_line(cells, tmp_path):
    other = outcome(msgspec.structs.replace(cells[0], version="0.0.1"))
    assert "the sweep 0.0.1: install one version everywhere" in other.error and not other.table
    gone = outcome(msgspec.structs.replace(cells[0], path=str(tmp_path / "none.parquet")))
    assert "none.parquet" in gone.error and "\n" not in gone.error and not gone.table
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(Path(cells[0].path).read_bytes()[:-9])
    assert "torn.parquet" in outcome(msgspec.structs.replace(cells[0], path=str(torn))).error
