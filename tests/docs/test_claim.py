"""docs/claim.md says what its command says, and shows the pictures it draws."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from secondsight.report.charts import figures
from secondsight.report.metrics import METRICS, text
from secondsight.report.table import by_pass
from secondsight.whatif import compare

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "claim.md").read_text()
RULES = re.findall(r" -r (\S+)", PAGE.split("\n\n    secondsight compare ", 2)[1].split("\n\n")[0])


SVG = "{http://www.w3.org/2000/svg}"
#: Half a pixel: what is nearer nobody sees.
NEAR = 0.5


def drawn(svg: str):
    """What a chart shows: its texts in order (title, ticks, axes, series, legend), and the corners of each series by its name."""
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    series = {}
    for path in root.iter(f"{SVG}path"):
        if (name := path.findtext(f"{SVG}title")) is not None:
            corners = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.attrib["d"])
            series[name] = [(float(x), float(y)) for x, y in corners]
    return texts, series


def assert_shows_the_same(kept: str, fresh: str) -> None:
    (kept_texts, kept_series), (texts, series) = drawn(kept), drawn(fresh)
    assert kept_texts == texts
    assert list(kept_series) == list(series) and series
    for name, corners in series.items():
        assert len(kept_series[name]) == len(corners) > 1, name
        for (x, y), (a, b) in zip(kept_series[name], corners, strict=True):
            assert abs(x - a) <= NEAR and abs(y - b) <= NEAR, f"{name}: {x} {y} is kept, {a} {b} drawn"


@pytest.fixture(scope="module")
def results():
    trace = ROOT / "examples" / "traces" / "redis-vm.parquet"
    return compare(trace, ["never", "khugepaged"], RULES, time_scale=1000, channels=False)


def test_the_table_at_the_end(results):
    assert len(RULES) == 7
    never = results.rows[0].metrics["guest_faults"]
    for row in results.rows[1:]:
        m = row.metrics
        said = [
            text(m[key], METRICS[key].form) for key in ("huge_blocks", "coverage", "bloat", "wasted_passes")
        ]
        said.append(text(m["guest_faults"] - never, "count"))
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{row.rules}`"))
        assert [cell.strip() for cell in line.split("|")[2:-1]] == said


def test_the_tables_after_each_pass(results):
    for table in by_pass(results):
        assert f"    {table.columns[0].header} " in PAGE
        block = PAGE[PAGE.index(f"    {table.columns[0].header} ") :].split("\n\n")[0].splitlines()[1:]
        for number, line in enumerate(block):
            cells = [list(column.cells)[number] for column in table.columns]
            assert line.split() == " ".join(c.replace("khugepaged under ", "") for c in cells).split()


def test_the_pictures(results):
    fresh = {figure.name: figure.svg(standalone=True) for figure in figures(results)}
    shown = re.findall(r"img/claim/(\w+)\.svg", PAGE)
    assert shown == ["hot", "wasted", "faults", "hour"]
    for name in shown[:3]:
        assert_shows_the_same((ROOT / "docs" / "img" / "claim" / f"{name}.svg").read_text(), fresh[name])


def test_a_picture_that_differs_is_noticed():
    kept = (ROOT / "docs" / "img" / "claim" / "hour.svg").read_text()
    assert_shows_the_same(kept, kept.replace("M80.0 ", "M80.4 ").replace("</svg>", "\n</svg>"))
    for old, new in (("M80.0 ", "M81.0 "), (">hot blocks<", ">blocks<"), ("under 6.1<", "under 6.2<")):
        assert old in kept
        with pytest.raises(AssertionError):
            assert_shows_the_same(kept, kept.replace(old, new))


def test_how_often_khugepaged_comes_round(results):
    rounds = {row.rules: int(row.passes.array()[-1]) for row in results.rows}
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
    fresh = {figure.name: figure.svg(standalone=True) for figure in figures(results)}
    assert_shows_the_same((ROOT / "docs" / "img" / "claim" / "hour.svg").read_text(), fresh["hot"])
    coverage = {row.rules: f"{100 * row.metrics['coverage']:.1f} %" for row in results.rows}
    assert coverage["thp-base"] == "0.0 %"
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"{coverage['6.1']} meet a huge page under 6.1, {coverage['7.3']} under 7.3, none without" in readme
    )
