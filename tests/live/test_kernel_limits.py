"""In the lab's guest: ``collapse`` under cgroup v2's limits, and hot memory first where DAMON shows it."""

import pytest

from support.live_guest import answered

pytestmark = pytest.mark.kernel

MIB, BLOCK = 1 << 20, 2 << 20


@pytest.fixture(scope="module")
def answer():
    with answered("limits.py", "6.12", 900) as reply:
        yield reply


@pytest.mark.parametrize(("name", "event"), [("max", "max"), ("high", "high")])
def test_a_limit_of_v2_is_not_met(answer, name, event):
    done = answer[name]
    assert done["failed"] and 0 < done["collapsed"] == done["confirmed"] < 30
    assert done["huge"] == done["collapsed"] * BLOCK
    assert done["added"] == done["collapsed"] * 504 * 4096 and abs(done["grown"] - done["added"]) <= 4 * MIB
    assert done["current"] <= 40 * MIB and done["events"][event] == "0", "no charge met it"
    assert any(f"memory.{name} of cgroup /memory-{name}" in reason for reason in done["left"])
    assert done["alive"]


def test_hot_memory_comes_first_where_damon_shows_it(answer):
    """Blocks 56 to 63 of 64 are in use; the rest was written once.

    DAMON asks one page of a region at a time and parts regions at random: the guest looks up to five times, until a look shows seven of
    the eight and little else; what it shows comes first.
    """
    seen = answer["heat"]
    assert seen["order"].startswith("hot first, by DAMON over"), seen
    assert set(seen["hot"]) >= set(range(57, 64)) and min(seen["hot"]) >= 54
    shown = seen["hot"][:8]
    assert seen["first"][: len(shown)] == shown and seen["collapsed"] == 8
    assert seen["kdamonds"] == "0", "taken down again"
