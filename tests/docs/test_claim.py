"""docs/claim.md says what its command says, and shows the pictures it draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secondsight.report.charts import figures
from secondsight.report.metrics import METRICS, text
from secondsight.report.table import by_pass
from secondsight.whatif import compare

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "claim.md").read_text()
RULES = re.findall(r" -r (\S+)", PAGE.split("\n\n    secondsight compare ", 2)[1].split("\n\n")[0])


@pytest.fixture(scope="module")
def told():
    trace = ROOT / "examples" / "traces" / "redis-vm.parquet"
    return compare(trace, ["never", "khugepaged"], RULES, time_scale=1000, channels=False)


def test_the_table_at_the_end(told):
    assert len(RULES) == 7
    never = told.rows[0].metrics["guest_faults"]
    for row in told.rows[1:]:
        m = row.metrics
        said = [
            text(m[key], METRICS[key].form) for key in ("huge_blocks", "coverage", "bloat", "wasted_passes")
        ]
        said.append(text(m["guest_faults"] - never, "count"))
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{row.rules}`"))
        assert [cell.strip() for cell in line.split("|")[2:-1]] == said


def test_the_tables_after_each_pass(told):
    for table in by_pass(told):
        assert f"    {table.columns[0].header} " in PAGE
        block = PAGE[PAGE.index(f"    {table.columns[0].header} ") :].split("\n\n")[0].splitlines()[1:]
        for number, line in enumerate(block):
            cells = [list(column.cells)[number] for column in table.columns]
            assert line.split() == " ".join(c.replace("khugepaged under ", "") for c in cells).split()


def test_the_pictures(told):
    drawn = {figure.name: figure.svg(standalone=True) for figure in figures(told)}
    shown = re.findall(r"img/claim/(\w+)\.svg", PAGE)
    assert shown == ["hot", "wasted", "faults", "hour"]
    for name in shown[:3]:
        assert (ROOT / "docs" / "img" / "claim" / f"{name}.svg").read_text() == drawn[name]


def test_how_often_khugepaged_comes_round(told):
    rounds = {row.rules: int(row.passes.array()[-1]) for row in told.rows}
    assert f"{rounds['7.2']} times where 6.1 does {rounds['6.1']} times" in " ".join(PAGE.split())


def test_the_table_of_other_memory(monkeypatch):
    # The whole table takes half a minute: the traces whose figures README and the text repeat, and one process.
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import claim_traces

    for name in ("hour-vm", "thread-pool"):
        lines = claim_traces.table([ROOT / "examples" / "traces" / f"{name}.parquet"]).splitlines()
        for line in lines:
            assert line in PAGE


def test_the_picture_of_the_hour():
    trace = ROOT / "examples" / "traces" / "hour-vm.parquet"
    command = next(
        line for line in PAGE.split("    secondsight compare ") if line.startswith("examples/traces/hour")
    )
    rules = re.findall(r" -r (\S+)", command.split("\n\n")[0])
    results = compare(trace, ["khugepaged"], rules, channels=False)
    drawn = {figure.name: figure.svg(standalone=True) for figure in figures(results)}
    assert (ROOT / "docs" / "img" / "claim" / "hour.svg").read_text() == drawn["hot"]
    coverage = {row.rules: f"{100 * row.metrics['coverage']:.1f} %" for row in results.rows}
    assert coverage["thp-base"] == "0.0 %"
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"{coverage['6.1']} meet a huge page under 6.1, {coverage['7.3']} under 7.3, none without" in readme
    )
