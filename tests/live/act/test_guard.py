"""The limits asked before each block: kept apart by half, met by none, seen when they change in the middle."""

import pytest

from secondsight.errors import MissingDependency
from secondsight.live.act.guard import MARGIN, Guard, Guarding
from secondsight.live.read import limits
from secondsight.live.read.limits import MemoryCgroup

MIB, BLOCK = 1 << 20, 2 << 20
PAGES = MIB // 4096


class Here:
    """A process in the cgroup /a/b of a host whose files are a test's."""

    pid = 4242

    def __init__(self, root):
        self.root, self.group, self.numa = root, "0::/a/b\n", b""
        proc, cgroups = root / "proc", root / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "pressure").mkdir()
        (proc / "self/mountinfo").write_text(f"30 1 0:26 / {cgroups} rw - cgroup2 cgroup2 rw\n")
        for folder in ("a/b", "c"):
            (cgroups / folder).mkdir(parents=True)
        (cgroups / "cgroup.controllers").write_text("memory\n")
        self.limit(100 * MIB, 40 * MIB)
        self.host(available=10000, free=8000)

    def limit(self, limit, used, name="memory.max", group="a/b"):
        (self.root / "cgroup" / group / name).write_text(f"{limit}\n")
        (self.root / "cgroup" / group / "memory.current").write_text(f"{used}\n")

    def host(self, available, free, low=100, blocks=50, nodes=1):
        """MiB, and free huge blocks a node."""
        proc = self.root / "proc"
        (proc / "meminfo").write_text(f"MemTotal: {20000 << 10} kB\nMemAvailable: {available << 10} kB\n")
        zone = f"zone Normal\n  pages free {free * PAGES // nodes}\n    min 1\n    low {low * PAGES}\n    high {2 * low * PAGES}\n"
        (proc / "zoneinfo").write_text("".join(f"Node {n}, {zone}" for n in range(nodes)))
        counts = "0 " * 9
        (proc / "buddyinfo").write_text(
            "".join(f"Node {n}, zone Normal {counts}{blocks if n == 0 else 0}\n" for n in range(nodes))
        )

    def stall(self, seconds):
        (self.root / "proc/pressure/memory").write_text(f"some avg10=0.00 total={int(seconds * 1e6)}\n")

    def read_file(self, name):
        return {"cgroup": self.group.encode(), "numa_maps": self.numa}[name]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    made = Here(tmp_path)
    made.clock = 0.0
    return made


def guard(here, **wanted):
    return Guard(here, Guarding(**wanted), here.root / "proc", lambda: here.clock)


def test_half_of_the_tightest_headroom_may_be_added(here):
    made = guard(here)
    assert made.start.where == "/a/b" and made.allowance == 30 * MIB and made.derived
    assert made.fits(30 * MIB)
    made.spent = 29 * MIB
    assert not made.fits(2 * MIB) and made.fits(0)
    here.limit(50 * MIB, 45 * MIB, group="a")
    assert guard(here).start.where == "/a"
    here.limit("max", 0), here.limit("max", 0, group="a")
    assert guard(here).start.where == "", "the host is the limit then"


def test_what_a_dry_run_may_say(here):
    made = guard(here, max_added=10 * MIB)
    # Each that still fits, as a round takes them; what adds nothing always.
    assert made.within([6 * MIB, 6 * MIB, 4 * MIB, 0, MIB]) == [True, False, True, True, False]
    made.spent = 8 * MIB
    assert made.within([3 * MIB, 2 * MIB]) == [False, True]
    assert made.no_room() == "it would add more than --max-added 10.0 MiB"


def test_what_processes_before_left_is_named_for_what_it_is(here):
    """No option that was never given: the limit that the first one's allowance came from."""
    first = guard(here)
    of = f"30.0 MiB, {first.source()}"
    second = guard(here, left=20 << 10, left_of=of)
    assert second.allowance == 20 << 10 and second.derived
    assert second.no_room() == (
        "it would add more than 20 KiB, what the processes before left of 30.0 MiB, half of what its limits leave "
        "(memory.max of cgroup /a/b: 40.0 MiB of 100.0 MiB used); --max-added allows more"
    )
    # Its own limit may be tighter than what is left.
    assert guard(here, left=50 * MIB, left_of=of).source() == first.source()
    given = guard(here, max_added=10 * MIB, left=4 * MIB, left_of="--max-added 10.0 MiB")
    assert given.allowance == 4 * MIB
    assert given.no_room() == (
        "it would add more than 4.0 MiB, what the processes before left of --max-added 10.0 MiB"
    )
    assert guard(here, max_added=4 * MIB).source() == "--max-added 4.0 MiB"


def test_memory_high_is_a_limit(here):
    here.limit(60 * MIB, 40 * MIB, "memory.high")
    assert guard(here).allowance == 10 * MIB


def test_the_half_is_kept_whoever_takes_the_rest(here):
    made = guard(here)
    assert made.refusal(BLOCK) == ""
    here.limit(100 * MIB, 69 * MIB)
    assert "30.0 MiB are to be left" in made.refusal(BLOCK)
    assert made.refusal(0) == "", "what adds nothing may go on"
    here.limit(100 * MIB, 100 * MIB - BLOCK - MARGIN + 1)
    assert "for a moment" in made.refusal(0)


def test_a_limit_lowered_in_the_middle(here):
    made = guard(here)
    here.limit(41 * MIB, 40 * MIB)
    assert "41.0 MiB" in made.refusal(0)
    here.limit(100 * MIB, 40 * MIB)
    assert made.refusal(BLOCK) == ""
    here.limit(44 * MIB, 41 * MIB, "memory.high")
    assert made.refusal(0).startswith("memory.high of cgroup /a/b")


def test_a_process_that_is_moved(here):
    made = guard(here)
    here.limit(10 * MIB, 9 * MIB, group="c")
    here.group = "0::/c\n"
    assert "cgroup /c" in made.refusal(0)
    here.group = "0::/nowhere\n"
    assert "not seen from here" in made.refusal(0)


def test_an_amount_of_ones_own_leaves_a_margin(here):
    made = guard(here, max_added=1 << 40)
    assert not made.derived and made.allowance == 1 << 40
    here.limit(100 * MIB, 100 * MIB - BLOCK - MARGIN)
    assert made.refusal(BLOCK) == ""
    here.limit(100 * MIB, 100 * MIB - BLOCK - MARGIN + 4096)
    assert "4.0 MiB must be left" in made.refusal(BLOCK)


def test_limits_that_cannot_be_seen_want_an_amount(here):
    here.group = "0::/elsewhere\n"
    with pytest.raises(MissingDependency, match="--max-added"):
        guard(here)
    made = guard(here, max_added=MIB)
    assert made.allowance == MIB and made.refusal(0) == "" and "not seen" in made.problem


def test_where_no_group_is_no_charge_is_refused(here):
    (here.root / "cgroup/cgroup.controllers").write_text("cpu\n")
    made = guard(here)
    assert made.group is None and made.refusals() == 0 and made.start.where == ""


def test_a_container_sees_a_part_of_its_limits(here, monkeypatch):
    monkeypatch.setattr(MemoryCgroup, "whole", lambda self: False)
    with pytest.raises(MissingDependency, match="limits above it are not seen"):
        guard(here)


def test_a_host_that_reclaims_or_has_no_huge_block(here):
    made = guard(here)
    here.clock, _ = 1.0, here.host(available=9000, free=99)
    assert "below the low watermark" in made.refusal(0)
    here.clock, _ = 2.0, here.host(available=9000, free=5000, blocks=0)
    assert "--compact" in made.refusal(0) and made.free_huge_blocks() == 0
    assert guard(here, compact=True).refusal(0) == ""
    here.clock, _ = 3.0, here.host(available=9000, free=5000)
    assert made.refusal(0) == "" and made.free_huge_blocks() == 50
    here.clock, _ = 4.0, here.host(available=9, free=400, low=200)
    assert "of the host" in made.refusal(BLOCK)


def test_only_the_nodes_that_hold_the_process_count(here):
    here.host(available=9000, free=5000, nodes=2)
    here.numa = b"7f00 default anon=3 N1=3 kernelpagesize_kB=4\n"
    assert "on 1 node of the process" in guard(here).refusal(0)
    here.numa = b"7f00 default anon=3 N0=1 N1=2\n"
    assert guard(here).refusal(0) == ""


def test_stalls_stop_it(here):
    here.stall(100.0)
    made = guard(here)
    here.clock = 0.2
    here.stall(100.2)
    assert made.refusal(0) == "", "too short to measure"
    here.clock = 1.0
    assert "20 % of the last 1.0 s" in made.refusal(0)
    here.clock = 2.0
    assert made.refusal(0) == "", "they are over"
    here.stall(100.9)
    here.clock = 3.0
    assert guard(here, max_stall_share=0.9).refusal(0) == ""
