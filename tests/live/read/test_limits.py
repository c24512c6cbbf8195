"""The limits that memory lives under, from files as kernels write them, and from the cgroups of this machine where there are any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.live.read import limits
from secondsight.live.read.limits import Limit, MemoryCgroup, Zone, read_host, tightest
from support.cgroups import memory_cgroup

MIB = 1 << 20
ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 345037
  pages free     3840
        boost    0
        min      11
        low      14
        high     17
        spanned  4095
        protection: (0, 2944, 24063, 24063)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count:    0
              high:     13
Node 1, zone   Normal
  pages free     1000
        min      200
        low      300
        high     400
Node 1, zone  Movable
  pages free     0
        min      0
        low      0
        high     0
"""
BUDDYINFO = """\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3
Node 0, zone    DMA32      2      3      0      2      3      2      1      4      4      2    752
Node 1, zone   Normal    383    180      1     15     53     34     14      7      4      0     24
"""


def files(root: Path, **values: object) -> None:
    """*values* as files of a cgroup at *root*; ``memory__max`` is memory.max."""
    root.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (root / name.replace("__", ".")).write_text(f"{value}\n")


def unified(root: Path) -> str:
    """mountinfo of a cgroup2 at *root*."""
    return f"30 1 0:26 / {root} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"


def test_watermarks_and_free_huge_blocks():
    zones = limits.parse_zoneinfo(ZONEINFO)
    assert zones[0] == Zone(0, "DMA", 3840 * 4096, 11 * 4096, 14 * 4096, 17 * 4096)
    assert [zone.name for zone in zones] == ["DMA", "Normal"], "a zone without pages is none"
    # Orders 9 and 10: a free block of 4 MiB is two of 2 MiB.
    assert limits.parse_buddyinfo(BUDDYINFO) == {0: 1 + 2 * 3 + 2 + 2 * 752, 1: 2 * 24}


def test_this_host_has_memory():
    host = read_host()
    assert 0 < host.free <= host.total and 0 < host.low <= host.high
    assert host.limit().headroom <= host.available and host.limit().unused <= host.free


def test_a_host_without_these_files_is_told(tmp_path):
    with pytest.raises(MissingDependency, match="meminfo"):
        read_host(tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 5 kB\n")
    with pytest.raises(MissingDependency, match="MemAvailable"):
        read_host(tmp_path)


def test_every_ancestor_of_v2_counts(tmp_path):
    files(tmp_path, cgroup__controllers="cpu memory")
    files(tmp_path / "a", memory__max=100 * MIB, memory__current=90 * MIB, memory__high="max",
          memory__stat=f"anon 5\ninactive_file {8 * MIB}", memory__events__local="low 0\nmax 3", memory__events="max 9")  # fmt: skip
    files(tmp_path / "a/b", memory__max="max", memory__high=50 * MIB, memory__current=20 * MIB)
    group = MemoryCgroup.of("0::/a/b\n", unified(tmp_path))
    assert group is not None and group.version == 2 and group.path == "/a/b"
    assert group.limits() == [
        Limit("memory.high", "/a/b", 50 * MIB, 20 * MIB),
        Limit("memory.max", "/a", 100 * MIB, 90 * MIB, 8 * MIB),
    ]
    assert tightest(group.limits()).headroom == (10 + 4) * MIB
    assert group.refusals() == 3
    assert group.pressure == tmp_path / "a/b/memory.pressure"


def test_a_group_of_v1_with_swap(tmp_path):
    mountinfo = f"40 1 0:9 / {tmp_path} rw - cgroup cgroup rw,memory\n"
    files(tmp_path, memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5 * MIB)
    files(tmp_path / "x", memory__limit_in_bytes=64 * MIB, memory__usage_in_bytes=60 * MIB,
          memory__memsw__limit_in_bytes=64 * MIB, memory__memsw__usage_in_bytes=62 * MIB, memory__failcnt=2,
          memory__stat=f"inactive_file 1\ntotal_inactive_file {2 * MIB}")  # fmt: skip
    group = MemoryCgroup.of("5:cpu:/\n4:memory:/x\n0::/\n", mountinfo)
    assert group is not None and group.version == 1 and group.pressure is None
    assert [(each.name, each.headroom) for each in group.limits()] == [
        ("memory.limit_in_bytes", 5 * MIB),
        ("memory.memsw.limit_in_bytes", 3 * MIB),
    ]
    assert group.refusals() == 2


def test_a_mount_that_shows_a_part(tmp_path):
    """A container's bind mount: its root is a group, and the ancestors above it are not seen."""
    files(tmp_path, cgroup__controllers="memory", memory__max=10 * MIB, memory__current=MIB)
    files(tmp_path / "in")
    mountinfo = f"30 1 0:26 /pod {tmp_path} rw - cgroup2 cgroup2 rw\n"
    group = MemoryCgroup.of("0::/pod/in\n", mountinfo)
    assert group is not None and not group.whole()
    assert [each.where for each in group.limits()] == ["/pod"]
    with pytest.raises(MissingDependency, match="not seen from here"):
        MemoryCgroup.of("0::/podium\n", mountinfo)
    with pytest.raises(MissingDependency, match="not seen from here"):
        MemoryCgroup.of("0::/../other\n", unified(tmp_path))


def test_no_controller_is_no_limit_and_no_mount_is_unknown(tmp_path):
    files(tmp_path, cgroup__controllers="cpu io")
    assert MemoryCgroup.of("0::/a\n", unified(tmp_path)) is None
    assert MemoryCgroup.of("", "") is None
    if limits.first_namespace():
        assert MemoryCgroup.of("0::/\n", "") is None, "the root of all has no limit, seen or not"
    with pytest.raises(MissingDependency, match="cgroup /a"):
        MemoryCgroup.of("0::/a\n", "")


def test_a_group_that_goes_is_told(tmp_path):
    files(tmp_path, cgroup__controllers="memory")
    files(tmp_path / "a")
    group = MemoryCgroup.of("0::/a\n", unified(tmp_path))
    assert group is not None and group.limits() == []
    (tmp_path / "a").rmdir()
    with pytest.raises(MissingDependency, match="has gone"):
        group.limits()


def test_stalls(tmp_path):
    file = tmp_path / "memory"
    file.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=7\n")
    assert limits.stalled(file) == 1.5
    assert limits.stalled(tmp_path / "nowhere") is None


def test_a_real_group():
    """What the reader says of a cgroup that we made is what we set, and its usage grows with what a process in it writes."""
    with memory_cgroup(64 * MIB) as folder:
        program = (
            f"import mmap, sys; m = mmap.mmap(-1, {16 * MIB}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS);"
            f"m.write(b'x' * {16 * MIB}); print(1, flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: (folder / "cgroup.procs").write_text(str(os.getpid())),
        ) as child:
            child.stdout.readline()
            group = MemoryCgroup.of(Path(f"/proc/{child.pid}/cgroup").read_text())
            assert group is not None and group.folder == folder
            own = next(each for each in group.limits() if each.where == group.path)
            assert own.limit == 64 * MIB and 16 * MIB <= own.used < 64 * MIB
            assert own.headroom <= 48 * MIB
            child.stdin.close()
