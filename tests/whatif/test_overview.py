"""A sweep's dataset read back: one trace as a comparison of it, all of them summed up."""

import pytest

from secondsight.errors import InputError, UsageError
from secondsight.report import encode, render
from secondsight.whatif import compare
from secondsight.whatif import spec as specs
from secondsight.whatif.cell import Outcome
from secondsight.whatif.dataset import Dataset
from secondsight.whatif.overview import results, sensitivities
from support import sweeps
from support.results import results as made_up


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


def test_a_trace_is_named_by_the_end_of_its_name(done):
    assert (
        results(done / "out", "t1").title
        == results(done / "out", "traces/t1.parquet").title
        == "SecondSight: traces/t1.parquet"
    )
    with pytest.raises(UsageError, match="several traces end so"):
        results(done / "out", ".parquet")
