"""The live view, driven by keys, over a host that nobody has."""

import asyncio
import html
import re

import pytest
from rich.cells import cell_len, set_cell_size

pytest.importorskip("textual")

from textual.widgets import DataTable

from secondsight.cli import topview
from secondsight.cli.top import Shown
from secondsight.cli.topview import TopView
from secondsight.host.columns import shown
from secondsight.signals import ENDING, interrupt_of
from support.host_views import NAMES, row, view


def lines_of(picture):
    """The rows of cells of a screenshot, as text: each part at its place, a cell being 12.2 wide (rich's export_svg)."""
    rows = {}
    for x, y, text in re.findall(
        r'<text[^>]* x="([0-9.]+)" y="([0-9.]+)"[^>]*clip-path[^>]*>(.*?)</text>', picture
    ):
        line = rows.get(float(y), "")
        rows[float(y)] = (
            line
            + " " * (round(float(x) / 12.2) - cell_len(line))
            + html.unescape(text).replace("\xa0", " ").rstrip("\n")
        )
    return [line.rstrip() for _, line in sorted(rows.items())]


@pytest.mark.parametrize(("size", "last"), [((80, 24), "gain"), ((200, 50), "visit")])
def test_a_picture_of_it(size, last):
    """What is seen at a terminal's width: no cell beyond it, titles over the ends of their numbers, no control character of a name."""
    rows = [row(name, float(at + 1), pid=None, resident=(1000 - at) << 20) for at, name in enumerate(NAMES)]

    async def drive():
        app = TopView(lambda: view(rows), Shown("cgroup", shown("cgroup"), None, (), None), 1000.0)
        async with app.run_test(size=size) as pilot:
            await app.workers.wait_for_complete()
            await pilot.pause()
            seen = lines_of(app.export_screenshot())
            await pilot.press("q")
            return seen

    seen = asyncio.run(drive())
    assert max(map(cell_len, seen)) <= size[0]
    assert all(line.isprintable() for line in seen)
    (at,) = (number for number, line in enumerate(seen) if " resident " in line)
    titles, *table = seen[at : at + 1 + len(NAMES)]
    end = titles.index("resident") + len("resident")
    assert all(re.search(r" [0-9.]+[MG]$", set_cell_size(line, end)) for line in table)
    assert (
        last in titles and seen[-1].startswith("q quit") and any(line.startswith("kernel ") for line in seen)
    )


def sorted_by(app):
    """The column that the head says the rows are sorted by."""
    return re.search(r"sorted by (\w+)", str(app.query_one("#head").render()))[1]


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_keys(size, monkeypatch):
    """Every key, on a terminal where all columns fit and on one where some do."""
    ticks = []
    monkeypatch.setattr(TopView, "set_interval", lambda self, seconds, tick: ticks.append(tick))
    rows = [row(name, float(at + 1), pid=None, resident=1000 - at) for at, name in enumerate(NAMES)]
    looks = []

    def look():
        looks.append(1)
        return view(rows)

    async def drive():
        app = TopView(look, Shown("cgroup", shown("cgroup"), None, (), None), 1000.0)
        async with app.run_test(size=size) as pilot:
            await app.workers.wait_for_complete()
            await pilot.pause()
            assert [each.name for each in app.rows] == NAMES[::-1]
            # From gain, which rows are sorted by until something else is asked for, to the column beside it.
            seen = [str(column.key.value) for column in app.query_one(DataTable).ordered_columns]
            await pilot.press("s")
            assert sorted_by(app) == (seen * 2)[seen.index("gain") + 1]
            await pilot.press("S", "S")
            assert sorted_by(app) == seen[seen.index("gain") - 1]
            while sorted_by(app) != "resident":
                await pilot.press("S")
            assert [each.name for each in app.rows] == NAMES
            await pilot.press("f")
            assert app.frozen
            ticks[0]()
            await app.workers.wait_for_complete()
            assert len(looks) == 1
            await pilot.press("r")
            await app.workers.wait_for_complete()
            assert len(looks) == 2
            await pilot.press("q")
        assert app.return_code == 0

    asyncio.run(drive())


@pytest.mark.parametrize("keys", [("ctrl+c",), ("enter", "ctrl+c")])
def test_an_interrupt_leaves_it_wherever_it_is(keys):
    rows = [row("one", 1.0, pid=None, resident=1)]

    async def drive():
        app = TopView(lambda: view(rows), Shown("cgroup", shown("cgroup"), None, (), None), 1000.0)
        async with app.run_test(size=(80, 24)) as pilot:
            await app.workers.wait_for_complete()
            await pilot.pause()
            await pilot.press(*keys)
            await pilot.pause()
            assert not app.is_running
        assert app.return_code == 0

    asyncio.run(drive())


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_is_one_more_way_to_leave_it(number, monkeypatch):
    def signalled(self):
        raise interrupt_of(number)

    monkeypatch.setattr(TopView, "run", signalled)
    topview.run(lambda: view([]), Shown("cgroup", shown("cgroup"), None, (), None), 1000.0)
