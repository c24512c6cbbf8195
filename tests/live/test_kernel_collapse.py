"""On the newest kernel: what khugepaged wastes and unmaps, ``collapse`` makes huge at once, and ``watch`` says which is which."""

import base64

import pytest

from secondsight.lab.agent import libc
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture
from support.live_guest import answered

pytestmark = pytest.mark.kernel

BLOCKS, PAGES = 16, 16 * 512


@pytest.fixture(scope="module")
def answer():
    with answered("fix.py", "newest", 240) as reply:
        yield reply


def test_khugepaged_collapses_none_and_unmaps_them_all(answer):
    """6.13 and later: the scan passes on the guest's accessed bits, the zap loses them, isolate refuses."""
    daemon = answer["khugepaged"]
    assert daemon["before"] == {"huge": 0, "mapped": PAGES}
    assert daemon["after"] == {"huge": 0, "mapped": 0}
    assert daemon["faults"] >= PAGES, "every page that the guest uses again is a fault"
    assert [visit["status"] for visit in answer["visits"]] == ["lack_referenced_page"] * BLOCKS


def test_explain_foretells_it(answer, tmp_path):
    path = tmp_path / "snapshot.npz"
    path.write_bytes(base64.b64decode(answer["snapshot"]))
    explained = explain(capture.load(path))
    assert (
        explained.totals.wasted == BLOCKS
        and explained.totals.collapsible == 0
        and explained.totals.unknown == 0
    )
    assert {(b.primary, b.referenced, b.secondary) for b in explained.blocks} == {(0, 0, 512)}
    assert [(b.guest, b.slot) for b in explained.blocks] == [(i << 21, 0) for i in range(BLOCKS)]


def test_watch_recognises_it_with_addresses(answer):
    # NumPy advises huge pages for its own large arrays: khugepaged looks there too.
    end = libc.AREA + (BLOCKS << 21)
    watched = [each for each in answer["watched"] if libc.AREA <= (each["address"] or 0) < end]
    assert [each["address"] for each in watched] == [libc.AREA + (i << 21) for i in range(BLOCKS)]
    assert all(each["wasted"] and "since 6.13" in each["reason"] for each in watched)
    assert {(each["referenced"], each["isolate_referenced"]) for each in watched} == {(512, 0)}
    assert answer["left"] == []


def test_collapse_makes_them_huge_in_one_go(answer):
    ours, done = answer["collapse"], answer["round"]
    assert ours["before"] == {"huge": 0, "mapped": PAGES}
    assert ours["after"]["huge"] >= 0.95 * BLOCKS and done["coverage"] >= 0.95
    assert done["collapsed"] == done["confirmed"] == ours["after"]["huge"] and done["refused"] == {}
    # A fault for each huge page, and for each small page of a block that was not needed for 95 %.
    assert ours["faults"] <= BLOCKS + 512 * (BLOCKS - ours["after"]["huge"])
    assert ours["touched"]["mapped"] == PAGES
