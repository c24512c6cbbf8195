"""On a booted kernel: ``record pid`` names what a process and its guest used, through kernel memory and DAMON, and leaves nothing."""

import pytest

from secondsight.live.read.page_table_changes import COLLAPSED
from secondsight.trace import Kind
from support.live_guest import answered

pytestmark = pytest.mark.kernel

HALF = 4096  # pages of the busy process's memory that are busy; as many are idle


@pytest.fixture(scope="module")
def answer():
    with answered("record.py", "6.12", 600) as reply:
        yield reply


def pages(recorded):
    """Of each look that saw anything: the pages of each (space, kind)."""
    by_look = {}
    for look, space, page, kind, count in recorded["rows"]:
        assert count == 1
        by_look.setdefault(look, {}).setdefault((space, Kind(kind)), []).append(page)
    return [by_look[look] for look in sorted(by_look)]


def test_kernel_memory_names_the_pages_that_turned_young(answer):
    """The half that was read, the pages written for the first time, and after clear_refs what was read again; the idle half never."""
    recorded = answer["process"]
    assert pages(recorded) == [
        {(0, Kind.CPU_READ): list(range(256))},
        {(0, Kind.CPU_WRITE): list(range(512, 522)), (0, Kind.CPU_READ): list(range(522, 532))},
        {(0, Kind.CPU_READ): list(range(100, 110))},
    ]
    assert any(note.startswith("interrupted") for note in recorded["notes"])


def test_a_collapse_is_khugepageds_and_not_an_access(answer):
    recorded = answer["process"]
    assert recorded["dropped"][COLLAPSED] == 512 - 10
    assert any("succeeded 1" in note for note in recorded["notes"]), recorded["notes"]


def test_a_page_that_only_the_guest_used_is_the_guests(answer):
    recorded = answer["vm"]
    assert [kind for _, kind in recorded["spaces"]] == ["process", "vm"]
    assert pages(recorded) == [
        {(1, Kind.GUEST_READ): list(range(100))},
        {(1, Kind.CPU_READ): list(range(100, 110))},
    ]


def test_with_clear_every_look_tells_what_was_used_again(answer):
    ten = {(1, Kind.GUEST_READ): list(range(10))}
    assert pages(answer["cleared"]) == [ten, ten, {(1, Kind.CPU_WRITE): list(range(20, 30))}]


@pytest.mark.parametrize("name", ["damon", "both"])
def test_damon_tells_the_busy_half_from_the_idle_one(answer, name):
    """Regions find the border in some aggregations, by pages chosen at random: the second half of the looks counts."""
    rows = answer[name]["rows"]
    last = max(look for look, *_ in rows)
    late = [row for row in rows if row[0] > last / 2]
    busy = dict.fromkeys(range(HALF), 0)
    idle = 0
    for _, _, page, _, count in late:
        if page in busy:
            busy[page] += count
        else:
            idle += count
    seen = sum(count > 0 for count in busy.values())
    assert seen >= 0.95 * HALF and idle <= 0.1 * sum(busy.values())
    assert {kind for _, _, _, kind, _ in late} == {Kind.CPU_READ}
    assert sum(busy.values()) / seen > 10, "samples in which a page's region was accessed"


def test_a_damon_in_use_is_left_alone(answer):
    assert "1 in use by someone else" in answer["taken"] and answer["theirs"] == "1"


def test_a_process_that_dies_ends_its_recording(answer):
    assert any("exited" in note for note in answer["died"])


def test_nothing_is_left_behind(answer):
    assert answer["left"] == []
