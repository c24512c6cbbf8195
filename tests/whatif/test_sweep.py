"""Sweeps in local processes: resumed, killed, grown, read back; the same results however they were come by."""

import os
import signal

import pyarrow.parquet as pq
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.report import encode, render
from secondsight.whatif import compare, workers
from secondsight.whatif import spec as specs
from secondsight.whatif.cell import Outcome
from secondsight.whatif.dataset import Dataset
from secondsight.whatif.overview import results, sensitivities
from secondsight.whatif.sweep import sweep
from support import sweeps

TOTAL = 3 * sweeps.CELLS


class Enough(Exception):
    """The sweep is ended from outside."""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished sweep of three traces, and its directory."""
    base = tmp_path_factory.mktemp("sweep")
    state = sweep(specs.read(sweeps.spec(base)), base, base / "out", jobs=2)
    assert (state.planned, state.before, state.run, state.failed) == (TOTAL, 0, TOTAL, {})
    return base


def again(base, where, **options):
    return sweep(specs.read(base / "spec.toml"), base, where, **options)


def test_what_is_finished_is_not_run_again(done):
    before = sweeps.contents(done / "out")
    state = again(done, done / "out")
    assert (state.before, state.run) == (TOTAL, 0)
    assert sweeps.contents(done / "out") == before
    assert len((done / "out" / "log.jsonl").read_text().splitlines()) == TOTAL


def test_interrupted_and_taken_up_again_it_gives_the_same_bytes(done, tmp_path):
    def stop(state):
        if state.run == 4:
            raise Enough

    with pytest.raises(Enough):
        again(done, tmp_path / "out", jobs=1, after_cell=stop)
    assert len(Dataset(tmp_path / "out").files()) == 4
    state = again(done, tmp_path / "out", jobs=1)
    assert (state.before, state.run) == (4, TOTAL - 4)
    assert sweeps.contents(tmp_path / "out") == sweeps.contents(done / "out")


def test_a_killed_worker_is_replaced_and_its_cell_run_again(done, tmp_path, monkeypatch):
    killed = []
    give = workers._Worker.give

    def and_kill(worker, cell):
        given = give(worker, cell)
        if len(killed) < 2:
            os.kill(worker.process.pid, signal.SIGKILL)
            killed.append(cell.id)
        return given

    monkeypatch.setattr(workers._Worker, "give", and_kill)
    state = again(done, tmp_path / "out", jobs=1)
    assert len(killed) == 2
    assert (state.run, state.failed) == (TOTAL, {})
    assert sweeps.contents(tmp_path / "out") == sweeps.contents(done / "out")
    assert '"tries":3' in (tmp_path / "out" / "log.jsonl").read_text()


def test_a_cell_that_kills_every_worker_is_given_up_and_the_others_run(done, tmp_path, monkeypatch):
    give = workers._Worker.give
    first = []

    def and_kill(worker, cell):
        given = give(worker, cell)
        first.append(cell.id)
        if cell.id == first[0]:
            os.kill(worker.process.pid, signal.SIGKILL)
        return given

    monkeypatch.setattr(workers._Worker, "give", and_kill)
    state = again(done, tmp_path / "out", jobs=1)
    assert (state.run, len(state.failed)) == (TOTAL - 1, 1)
    assert "its worker died 3 times" in next(iter(state.failed.values()))


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


def test_one_trace_of_a_sweep_is_what_a_comparison_of_it_says(done):
    comparison = results(done / "out", "t1")
    direct = compare(
        done / "traces" / "t1.parquet",
        ["never", "khugepaged,max_ptes_none=509", "madv_collapse", "oracle"],
        ["6.1", "7.2"],
        channels=False,
    )
    mine = {row.label: row for row in comparison.rows}
    assert len(mine) == sweeps.ROWS
    for row in direct.rows:
        same = mine[row.label.replace("khugepaged,max_ptes_none=509", "khugepaged")
                    + (" max_ptes_none=509" if row.policy == "khugepaged" else "")]  # fmt: skip
        assert same.metrics == row.metrics
        assert same.fate == row.fate
        verdicts = [comparison.verdicts[v].code for v in same.events.verdict.array()]
        assert verdicts == [direct.verdicts[v].code for v in row.events.verdict.array()]
    assert comparison.oracle == direct.oracle
    assert "khugepaged under 6.1" in comparison.sensitivity["max_ptes_none"]
    assert "traces/t1.parquet" in render(comparison)


def test_over_all_traces_counts_are_sums_and_shares_means(done):
    comparison = results(done / "out")
    each = [results(done / "out", f"t{i}") for i in range(3)]
    assert comparison.answer.startswith("Over 3 traces: ")
    for row in comparison.rows:
        parts = [next(r for r in one.rows if r.label == row.label).metrics for one in each]
        assert row.metrics["bloat"] == sum(p["bloat"] for p in parts)
        assert row.metrics["coverage"] == pytest.approx(sum(p["coverage"] for p in parts) / 3)
        spread = comparison.spread["coverage"][row.label]
        values = sorted(p["coverage"] for p in parts)
        assert spread == [(0, values[0]), (1 / 3, values[1]), (2 / 3, values[2]), (1, values[2])]
    page = render(comparison)
    assert "Coverage over the traces" in page
    assert 'id="heat"' not in page
    assert encode(comparison) == encode(results(done / "out"))


def test_what_is_not_there_is_said(done, tmp_path):
    with pytest.raises(UsageError, match="no such trace; there are traces"):
        results(done / "out", "t9")
    with pytest.raises(InputError, match="not a sweep's directory"):
        results(tmp_path)
    dataset = Dataset(tmp_path / "new")
    spec = specs.read(done / "spec.toml")
    cells, _ = specs.plan(spec, done)
    with dataset.claimed():
        dataset.write_plan(spec, cells, {})
    with pytest.raises(UsageError, match="none of the 30 planned rows is finished"):
        results(tmp_path / "new")
    dataset.keep(Outcome(cell=cells[0].id, table=b"torn", details=b""))
    with pytest.raises(InputError, match="remove it and sweep again"):
        results(tmp_path / "new")


def test_curves_hold_the_other_knobs():
    from support.results import results as made_up

    row = made_up(blocks=8, columns=2).rows[0]
    rows = [
        type(row)(**{f: getattr(row, f) for f in row.__struct_fields__}
                  | {"label": f"p under r a={a:g} b={b:g}", "knobs": {"a": a, "b": b}, "metrics": {"coverage": a + b}})
        for a in (2.0, 1.0) for b in (10.0, 20.0)
    ]  # fmt: skip
    curves = sensitivities(rows)
    assert {k: list(v) for k, v in curves.items()} == {
        "a": ["p under r b=10", "p under r b=20"],
        "b": ["p under r a=2", "p under r a=1"],
    }
    assert curves["a"]["p under r b=20"] == [(1.0, {"coverage": 21.0}), (2.0, {"coverage": 22.0})]
