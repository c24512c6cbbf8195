"""Views of a host that nobody has."""

from secondsight.host.intervals import Interval
from secondsight.host.rows import HostRow
from secondsight.host.supply import Counters, Supply
from secondsight.host.survey import HostView

NAMES = ["/plain", 'qu"ote', "new\nline\x1b[31m", "日本", "back\\slash", "x" * 300, "x" * 300 + "y"]


def row(name, gain=1.0, **more):
    known = {
        "pid": None,
        "processes": 1,
        "user": "",
        "cgroup": "",
        "container": "",
        "vm": "",
        "resident": 100,
        "huge": 40,
        "swapped": 0,
    }
    interval = Interval(gain, gain / 2, gain * 2)
    return HostRow(
        name=name,
        hugetlb=0,
        **(known | {"now": interval, "then": interval, "gain": interval, "added": interval} | more),
    )


def view(rows, taken=1000.0, by="cgroup"):
    supply = Supply(
        memory=None, free_huge={0: 5 << 21, 1: 0}, could_compact=7, types=None, counters=Counters(1.0, {}, 3, 4), stalled=None,
        switches={"enabled": "madvise"}, limits=None,
    )  # fmt: skip
    total = row("total", sum(each.gain.value for each in rows), processes=len(rows), share_read=0.5)
    now = {"enabled": "madvise", "shmem_enabled": "never", "max_ptes_none": 511}
    return HostView(
        version="1", schema=1, taken=taken, kernel="6.12", by=by, now=now, then=now | {"enabled": "always"}, source="procfs",
        supply=supply, rows=tuple(rows), total=total, trouble={"zombies": 2, "not readable (another user's)": 1},
        cpu_seconds=0.5, wall_seconds=1.0,
    )  # fmt: skip


def bare_row(name, resident=0, **more):
    """A row of which no block was looked at."""
    known = {
        "pid": None,
        "processes": 1,
        "user": "root",
        "cgroup": "/",
        "container": "",
        "vm": "",
        "huge": 0,
        "swapped": 0,
        "hugetlb": 0,
    }
    return HostRow(name=name, resident=resident, **(known | more))


BARE_ROWS = [
    bare_row("redis", 3 << 30, gain=Interval.exact(5), user="redis"),
    bare_row("postgres", 1 << 30, gain=Interval(9, 7, 11), huge=1 << 29),
    bare_row("sleep", 1 << 20),
]
