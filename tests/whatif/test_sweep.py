"""Sweeps in local processes: resumed, killed, grown, read back; the same results however they were come by."""

import pyarrow.parquet as pq
import pytest

from secondsight.errors import UsageError
from secondsight.whatif import spec as specs
from secondsight.whatif.dataset import Dataset
from secondsight.whatif.overview import results
from secondsight.whatif.sweep import sweep
from support import sweeps


class Enough(Exception):
    """The sweep is ended from outside."""


def again(base, where, **options):
    return sweep(specs.read(base / "spec.toml"), base, where, **options)


def test_what_is_finished_is_not_run_again(done):
    before = sweeps.contents(done / "out")
    state = again(done, done / "out")
    assert (state.before, state.run) == (sweeps.TOTAL, 0)
    assert sweeps.contents(done / "out") == before
    assert len((done / "out" / "log.jsonl").read_text().splitlines()) == sweeps.TOTAL


def test_interrupted_and_taken_up_again_it_gives_the_same_bytes(done, tmp_path):
    def stop(state):
        if state.run == 4:
            raise Enough

    with pytest.raises(Enough):
        again(done, tmp_path / "out", jobs=1, after_cell=stop)
    assert len(Dataset(tmp_path / "out").files()) == 4
    state = again(done, tmp_path / "out", jobs=1)
    assert (state.before, state.run) == (4, sweeps.TOTAL - 4)
    assert sweeps.contents(tmp_path / "out") == sweeps.contents(done / "out")


def test_a_spec_that_grew_runs_only_what_is_new(done, tmp_path):
    text = sweeps.SPEC.replace('"oracle"]', '"oracle", "hawkeye,every=5"]').replace(
        "[0, 509, 511]", "[0, 256, 509, 511]"
    )
    path = sweeps.spec(tmp_path, 3, sweeps.SPEC)
    sweep(specs.read(path), tmp_path, tmp_path / "out", jobs=1)
    path.write_text(text)
    sweep(specs.read(path), tmp_path, tmp_path / "out", jobs=1)
    dataset = Dataset(tmp_path / "out")
    table = dataset.table(dataset.plan())
    # Ten rows a trace were there; two of khugepaged's and two of hawkeye's came, and nothing was run twice.
    assert len(table) == 3 * 14
    assert sum(pq.read_metadata(path).num_rows for path in dataset.files().values()) == 3 * 14


def test_two_sweeps_do_not_share_a_directory(done, tmp_path):
    with Dataset(tmp_path / "out").claimed(), pytest.raises(UsageError, match="another sweep is at work"):
        again(done, tmp_path / "out")


def test_a_damaged_trace_fails_alone(tmp_path):
    path = sweeps.spec(tmp_path, 1)
    (tmp_path / "traces" / "torn.parquet").write_bytes(b"PAR1")
    state = sweep(specs.read(path), tmp_path, tmp_path / "out", jobs=1)
    assert state.run == sweeps.CELLS
    assert list(state.failed) == ["traces/torn.parquet"]
    notes = results(tmp_path / "out").provenance.notes
    assert any(
        note.startswith("left out, for it could not be read: ") and "torn.parquet" in note for note in notes
    )


@pytest.mark.parametrize("traces", [1, 2])
def test_a_report_of_one_trace_says_what_of_it_is_not_finished(tmp_path, traces):
    def stop(state):
        if state.run == 2:
            raise Enough

    path = sweeps.spec(tmp_path, traces)
    with pytest.raises(Enough):
        sweep(specs.read(path), tmp_path, tmp_path / "out", jobs=1, after_cell=stop)
    comparison = results(tmp_path / "out", "t0")
    assert len(comparison.rows) < sweeps.ROWS
    assert f"{len(comparison.rows)} of {sweeps.ROWS} planned rows are finished" in comparison.provenance.notes


def test_the_directory_is_one_parquet_dataset(done):
    table = pq.read_table(done / "out" / "cells")
    assert len(table) == 3 * sweeps.ROWS
    assert set(table.column("trace").to_pylist()) == {f"traces/t{i}.parquet" for i in range(3)}
    at_zero = [v for v, k in zip(table.column("max_ptes_none").to_pylist(), table.column("knobs").to_pylist(), strict=True)
               if k == '{"max_ptes_none":0.0}']  # fmt: skip
    assert at_zero == [0] * 6
