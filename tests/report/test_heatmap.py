"""Heat maps: what a cell says."""

import base64
import io
import re
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.report import heatmap
from secondsight.report.heatmap import Panel, level, shrink


def values(*rows):
    return np.array(rows, np.float32)


def test_a_band_is_the_mean_of_its_blocks_each_at_its_most_in_the_part():
    four = values([0, 0.5, 0, 0], [1, 0, 0, 0])
    assert shrink(four, 1, 2).tolist() == [[0.75, 0.0]]
    assert shrink(four, 2, 4).tolist() == four.tolist()
    # What is not known is left out of the mean; where nothing is known there is none.
    half = shrink(values([np.nan, 0.5], [np.nan, np.nan]), 1, 2)
    assert np.isnan(half[0, 0])
    assert half[0, 1] == 0.5


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
def test_no_cell_is_lost(blocks, times, rows, columns):
    out = shrink(np.ones((blocks, times), np.float32), rows, columns)
    assert out.shape == (min(rows, blocks), min(columns, times))
    assert (out == 1).all()


def test_levels_rise_from_one_page_to_all():
    shades = level(values([0, 1 / 512, 1 / 64, 1 / 8, 1]))[0]
    assert shades[0] == 0
    assert shades[1] == np.float32(0.1)
    assert shades[4] == 1
    assert (np.diff(shades) > 0).all()


def text(panels, labels, **how):
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=how["colour"], color_system="truecolor").print(
        heatmap.terminal(panels, labels, end="9 s", **how)
    )
    return out.getvalue()


def test_shades_without_colours():
    shown = text(
        [Panel("A", values([0, 1 / 512, 1 / 32, 1 / 4, 1, np.nan]))],
        ["0 MiB"],
        width=80,
        height=4,
        colour=False,
    )
    assert shown.splitlines()[1] == "0 MiB ·░▒▓█?"


def test_two_bands_a_line_with_colours():
    panels = [Panel("A", values([0, 1], [1, 0], [0, 0]))]
    shown = text(panels, ["a", "b", "c"], width=80, height=4, colour=True)
    assert sum("▀" in line for line in shown.splitlines()) == 2
    assert "38;2;253;231;37" in shown


def test_the_picture_in_the_drawing_is_a_png_of_the_cells():
    panel = Panel("A", values([1, 0, 0], [0, 0, 1 / HPAGE_PMD_NR]))
    drawn = heatmap.svg([("a", [panel])], ["0 MiB"], title="t", end="1 s")
    raw = base64.b64decode(re.search(r'image/png;base64,([^"]+)"', drawn)[1])
    assert raw[:8] == b"\x89PNG\r\n\x1a\n" and raw[16:24] == b"\0\0\0\x03\0\0\0\x02", "three wide, two high"
    at = raw.index(b"IDAT")
    size = int.from_bytes(raw[at - 4 : at], "big")
    assert zlib.crc32(raw[at : at + 4 + size]) == int.from_bytes(raw[at + 4 + size : at + 8 + size], "big")
    lines = np.frombuffer(zlib.decompress(raw[at + 4 : at + 4 + size]), np.uint8).reshape(2, 1 + 3 * 3)
    assert not lines[:, 0].any(), "no filter"
    (every, *none), (*more, one) = lines[:, 1:].reshape(2, 3, 3).tolist()
    assert every == [253, 231, 37] and len({tuple(each) for each in (every, *none, *more, one)}) == 3
    assert none == more and sum(none[0]) < sum(one) < sum(every)


def test_names_are_escaped():
    drawing = heatmap.svg([("<b>", [Panel("A&B", values([0]))])], ["0"], title="<t>", end="1 s")
    assert "<b>" not in drawing
    assert "A&amp;B" in drawing


def test_a_panel_that_only_later_rows_have_is_named_and_long_names_have_their_room():
    two, three = (
        [Panel(name, values([0, 1])) for name in "AB"],
        [Panel(name, values([0, 1])) for name in "ABC"],
    )
    drawn = heatmap.svg([("6.1", two), ("thp-base (unasked)", three)], ["0 MiB"], title="t", end="9 s")
    titles = {
        drawn_title[2]: int(drawn_title[1])
        for drawn_title in re.finditer(r'<text x="(\d+)" y="52"[^>]*>(\w)<', drawn)
    }
    assert list(titles) == ["A", "B", "C"] and titles["A"] >= 8 + 7 * len("thp-base (unasked)")
    assert int(re.search(r'viewBox="0 0 (\d+) ', drawn)[1]) > titles["C"] + heatmap.WIDTH
