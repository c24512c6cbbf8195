"""Results travel as JSON and come back the same; figures are printed for people; answers and charts say what is so."""

import json
import math
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError, UsageError
from secondsight.report import decode, encode, explain
from secondsight.report.answer import best_within
from secondsight.report.charts import tick_printer, write_svg
from secondsight.report.metrics import METRICS, SHOWN, text
from secondsight.report.schema import finite, pack
from secondsight.report.svg import Axis, Line, changes, chart, thin, ticks
from secondsight.report.table import by_pass, records, sensitivity
from secondsight.report.verdicts import VERDICTS, rule
from support.results import results


@given(st.lists(st.integers(-300, 600), max_size=40), st.sampled_from(["i2", "i4", "f4", "f8"]))
def test_an_array_comes_back_as_it_went(values, dtype):
    packed = pack(np.array(values).reshape(-1, 1), dtype)
    assert packed.shape == [len(values), 1]
    assert packed.array().ravel().tolist() == values


def test_a_damaged_array_is_said_to_be_damaged():
    packed = pack([1, 2, 3], "i4")
    broken = type(packed)(packed.dtype, packed.shape, packed.data[:8])
    with pytest.raises(ValueError, match="damaged"):
        broken.array()


def test_results_come_back_as_they_went():
    made = results(blocks=12, columns=3)
    assert decode(encode(made), "r.json") == made
    assert encode(made) == encode(results(blocks=12, columns=3))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{}", "schema version None"),
        (b'{"schema": 1, "what": "process 1"}', "it has no rows: `compare --json FILE` writes results"),
        (b'{"schema": 99}', "version 99"),
        (b"nonsense", "not a results file"),
        (b'{"schema": 2}', "not a results file"),
    ],
)
def test_what_is_no_results_file_is_refused(raw, said):
    with pytest.raises(InputError, match=said):
        decode(raw, "r.json")


def _packed(**changes):
    def change(document):
        document["rows"][0]["seconds"] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_packed(data="!!!"), r"rows\[0\].seconds: "),
        (_packed(shape=[10**12]), "do not fit the shape"),
        (_packed(shape=[-1]), "nothing has the shape"),
        (_packed(shape=[2]), "do not fit the shape"),
        (
            lambda document: document["rows"][0].update(huge=document["rows"][0]["fate"]),
            r"rows\[0\]: its columns have",
        ),
        (
            lambda document: document["blocks"].update(space=document["rows"][0]["seconds"]),
            "blocks: its columns have",
        ),
        (lambda document: document["rows"][0]["channels"]["primary"].update(data=""), "channels.primary"),
        (
            lambda document: document["rows"][0].update(
                attempts={"x": {"begun": 1, "refused": 1, "allocations": 1, "invalidations": 1}}
            ),
            "there is no order 'x'",
        ),
        (lambda document: document.update(sensitivity={"knob": {"a": []}}), "sensitivity of 'knob'"),
    ],
)
def test_results_that_fit_nothing_are_refused_where_they_do_not(change, said):
    document = json.loads(encode(results(blocks=12, columns=3)))
    change(document)
    with pytest.raises(InputError, match=said):
        decode(json.dumps(document).encode(), "r.json")


def test_figures_are_found_by_key_and_by_title():
    assert explain("bloat_share").key == "bloat_share"
    assert explain("MMU overhead, nested").key == "overhead_nested"
    with pytest.raises(UsageError, match="did you mean coverage"):
        explain("coverge")
    assert set(SHOWN) <= set(METRICS)


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [(None, "count", "–"), (0.9314, "share", "93.1 %"), (12.5 * 2**20, "bytes", "12.5 MiB"), (100, "bytes", "100 B"),
     (0.0018, "seconds", "1.8 ms"),
     (2.5e-7, "seconds", "0.2 µs"), (0, "seconds", "0"), (1234567, "count", "1.2 M"), (12345, "count", "12 345"), (0.5, "index", "0.50")],
)  # fmt: skip
def test_figures_are_printed_for_people(value, form, said):
    assert text(value, form) == said


def test_only_finite_numbers_reach_json():
    assert finite(math.nan) is None
    assert finite(math.inf) is None
    assert finite(np.float64(1.5)) == 1.5


def test_the_oracles_curve_is_read_between_its_points():
    curve = [(0.5, 0.8), (1.0, 1.0)]
    assert best_within(curve, 0.25) == pytest.approx(0.4)
    assert best_within(curve, 0.75) == pytest.approx(0.9)
    assert best_within([], 0.5) is None


def test_every_answer_of_khugepaged_has_its_rule():
    from secondsight.mm.khugepaged.result import ScanResult as Scan

    for code in Scan:
        assert str(code) in VERDICTS
    assert "66bc627e7fee" in rule("lack_referenced_page@isolate").cite
    assert rule("page_locked@isolate").meaning.startswith("In isolate")


def test_ticks_have_no_decimal_that_says_nothing():
    assert [tick_printer("bytes")(v * 2**20) for v in (0, 0.5, 5, 12.5)] == [
        "0 B",
        "512 KiB",
        "5 MiB",
        "12.5 MiB",
    ]
    assert [tick_printer("seconds")(v) for v in (0, 0.4, 0.0025, 2)] == ["0 s", "400 ms", "2.5 ms", "2 s"]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, width):
    marks = ticks(low, low + width)
    assert 1 <= len(marks) <= 11
    assert all(low - 1e-6 * width <= t <= low + width * (1 + 1e-6) + 1e-6 for t in marks)


def test_a_chart_keeps_ends_when_it_is_thinned():
    points = [(float(i), float(i * i)) for i in range(5000)]
    kept = thin(points)
    assert len(kept) <= 402
    assert (kept[0], kept[-1]) == (points[0], points[-1])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_a_step_line_of_its_changes_is_the_same_line(values):
    points = [(float(i), float(v)) for i, v in enumerate(values)]
    kept = changes(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    for x, y in points:
        assert [b for a, b in kept if a <= x][-1] == y


def test_charts_become_files_that_stand_alone(tmp_path):
    written = write_svg(results(blocks=20, columns=4), tmp_path / "out")
    assert {"utility.svg", "huge.svg", "bloat.svg", "max_ptes_none-coverage.svg"} <= {p.name for p in written}
    for path in written:
        root = ElementTree.fromstring(path.read_text())
        said = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "khugepaged under 6.1" in said
        assert "data-chart" not in root.attrib


def test_a_table_after_each_pass_and_one_for_each_knob():
    made = results(blocks=20, columns=8)
    # Row 0 finishes a pass each second wake-up; its guest faults are 10, 20, 30 ...; never's stand at 5 from its second wake-up on.
    steps = np.arange(1, 9)
    first = msgspec.structs.replace(
        made.rows[0],
        passes=pack(steps // 2, "i4"),
        hot=pack(steps, "i4"),
        wasted=pack(0 * steps, "i4"),
        guest_faults=pack(10 * steps, "i4"),
    )
    never = msgspec.structs.replace(made.rows[3], guest_faults=pack(np.r_[0, np.full(7, 5)], "i4"))
    cells_of_tables = [
        [list(column.cells) for column in table.columns]
        for table in by_pass(msgspec.structs.replace(made, rows=[first, never]))
    ]
    hot, _, wasted, faults = cells_of_tables
    # Passes 1, 2, 3, and the end (four are complete then); never's row, where no pass ever is, is left out.
    assert hot == [["khugepaged under 6.1"], ["2"], ["4"], ["6"], ["8"]]
    assert [c[0] for c in wasted[1:]] == ["0", "0", "0", "0"]
    assert [c[0] for c in faults[1:]] == ["15", "35", "55", "75"]
    slower = msgspec.structs.replace(first, label="slower", passes=pack(np.minimum(steps // 2, 1), "i4"))
    (both, *_) = by_pass(msgspec.structs.replace(made, rows=[first, slower]))
    assert [list(c.cells)[1] for c in both.columns] == ["slower", "2", "", "", "8"]
    (coverage, bloat) = sensitivity(made)
    assert coverage.columns[0].header == "coverage at max_ptes_none ="
    assert [c.header for c in bloat.columns[1:]] == [str(x) for x in range(0, 512, 64)]
    flat = records(made)
    assert len(flat) == 6 + 2 * 8
    assert flat[6]["knobs"] == '{"max_ptes_none":0.0}'
    assert by_pass(made) == []


def test_a_chart_escapes_its_labels():
    assert "<b>" not in chart([Line('<b>&"', [(0, 1), (1, 2)], 0)], Axis("<b>"), Axis("y"))
