"""The live view, driven by keys, over a host that nobody has."""

import asyncio

import pytest

pytest.importorskip("textual")

from secondsight.cli.top import Shown
from secondsight.cli.topview import TopView
from secondsight.host.columns import shown
from support.host_views import NAMES, row, view


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_keys(size):
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
            await pilot.press("s", "s", "s")
            assert app._shown.sort == shown("cgroup")[2]
            assert [each.name for each in app.rows] == NAMES
            await pilot.press("S")
            assert app._shown.sort == shown("cgroup")[1]
            await pilot.press("f")
            assert app.frozen
            app._due()
            await app.workers.wait_for_complete()
            assert len(looks) == 1
            await pilot.press("r")
            await app.workers.wait_for_complete()
            assert len(looks) == 2
            await pilot.press("q")
        assert app.return_code == 0

    asyncio.run(drive())
