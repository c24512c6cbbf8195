"""The charts of a comparison: files that stand alone, and ticks as a person writes them."""

from xml.etree import ElementTree

from secondsight.report.charts import tick_printer, write_svg
from support.results import results


def test_ticks_have_no_decimal_that_says_nothing():
    assert [tick_printer("bytes")(v * 2**20) for v in (0, 0.5, 5, 12.5)] == [
        "0 B",
        "512 KiB",
        "5 MiB",
        "12.5 MiB",
    ]
    assert [tick_printer("seconds")(v) for v in (0, 0.4, 0.0025, 2)] == ["0 s", "400 ms", "2.5 ms", "2 s"]


def test_charts_become_files_that_stand_alone(tmp_path):
    written = write_svg(results(blocks=20, columns=4), tmp_path / "out")
    assert {"utility.svg", "huge.svg", "bloat.svg", "max_ptes_none-coverage.svg"} <= {p.name for p in written}
    for path in written:
        root = ElementTree.fromstring(path.read_text())
        said = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "khugepaged under 6.1" in said
        assert "data-chart" not in root.attrib
