"""Sampling a running process through procfs: a child of ours that does what we know."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secondsight.errors import TargetGone, UsageError
from secondsight.live.recording_channels import LiveChannels
from secondsight.live.sampling import record_samples
from secondsight.trace.read.damo import DamonRegion
from secondsight.trace.samples import Samples
from secondsight.whatif.sampled import compare_samples
from support.operators import operated

BLOCK = 1 << 21

# Two areas, far apart, of 4 blocks each, at block boundaries. Reads lines: "A p n" writes the pages p to p + n of area A.
CHILD = """
import mmap, sys, ctypes
areas = []
for _ in range(2):
    area = mmap.mmap(-1, 8 << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    first = -at % (1 << 21)
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(at + first + (4 << 21)), 4096, 0)  # mappings of their own
    areas.append((area, first, at + first))
print(areas[0][2], areas[1][2], flush=True)
for line in sys.stdin:
    which, page, number = map(int, line.split())
    area, first, _ = areas[which]
    for p in range(page, page + number):
        area[first + p * 4096] = 1
    print("done", flush=True)
"""


class Child:
    """The child, told what to write, and where its areas are."""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1, text=True)
        self.base = [int(word) for word in self.process.stdout.readline().split()]
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def write(self, *what):
        self.process.stdin.write(" ".join(map(str, what)) + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()


def record(path, child, at_look, *, looks, regions=None, **options):
    """Samples of *child*, calling ``at_look[n]()`` after look n; as {(look, area, block): counts by name}, and the provenance."""

    def report(number, blocks):
        at_look.get(number, lambda: None)()
        if number == looks:
            raise KeyboardInterrupt

    with LiveChannels.open(child.process.pid, 0.02, kernel_memory=False, damon=False) as channels:
        if regions is not None:
            channels.regions, channels.damon_taken = regions, lambda: 20
        about = record_samples(path, channels, interval=0.02, report=report, **options)
    rows = {}
    for number, look in enumerate(Samples.open(path).looks()):
        for at, address in enumerate(look["address"].tolist()):
            for area, base in enumerate(child.base):
                if base <= address < base + 4 * BLOCK:
                    row = {name: int(look[name][at]) for name in look.columns}
                    rows[number, area, (address - base) // BLOCK] = row
    return rows, about


def test_through_procfs_what_appeared_was_used_and_the_rest_is_unknown(tmp_path):
    with Child() as child:
        child.write(0, 0, 512)
        at_look = {1: lambda: child.write(0, 512, 30), 2: lambda: child.write(0, 540, 10)}
        rows_at, about = record(tmp_path / "s.parquet", child, at_look, looks=3)
    whole = [
        (
            rows_at[look, 0, 0]["primary_used"],
            rows_at[look, 0, 0]["primary_unused"],
            rows_at[look, 0, 0]["present"],
        )
        for look in range(3)
    ]
    assert whole == [(0, 0, 512)] * 3
    grown = [rows_at[look, 0, 1]["primary_used"] for look in (1, 2)]
    assert grown == [30, 8] and rows_at[2, 0, 1]["present"] == 38 and (0, 0, 1) not in rows_at
    assert about.memory == "procfs" and about.cleared == [] and about.cost.looks == 3
    assert {channel.name: channel.seen for channel in about.channels} == dict.fromkeys(
        ("primary", "referenced", "secondary", "damon", "soft_dirty"), False
    )
    assert "interrupted; holds what was recorded until then" in about.notes


def damon_runs() -> bool:
    """Whether a kdamond is at work, whoever started it."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().startswith("kdamond"):
                return True
    return False


def test_with_clear_mappings_that_rested_are_unused_and_those_used_whole_used(tmp_path):
    """Another's DAMON may take a page's accessed bit between two looks: then use is unknown, and never wrong."""
    # Where page flags may not be read, whatever is set may be PG_referenced.
    used = (512, 0) if os.geteuid() == 0 else (0, 0)
    known = set()
    for n in range(5):
        with Child() as child:
            child.write(0, 0, 2048)
            child.write(1, 0, 2048)
            at_look = {1: lambda child=child: child.write(0, 0, 2048)}
            rows_at, about = record(tmp_path / f"{n}.parquet", child, at_look, looks=3, clear=True)
        assert about.cleared[0] == "1"
        rows = [
            [
                (row["primary_used"], row["primary_unused"])
                for row in (rows_at[1, 0, b], rows_at[1, 1, b], rows_at[2, 0, b])
            ]
            for b in range(4)
        ]
        for busy, idle, rested in rows:
            assert busy in (used, (0, 0)) and idle in ((0, 512), (0, 0)) and rested in ((0, 512), (0, 0))
        known |= {b for b in range(4) if rows[b] == [used, (0, 512), (0, 512)]}
        if len(known) == 4:
            return
    if damon_runs():
        pytest.skip("a DAMON of somebody else's runs here, and took accessed bits in each of five recordings")
    raise AssertionError(f"of four blocks {sorted(known)} were known in one of five recordings")


def test_with_clear_a_mapping_used_in_part_stays_unknown(tmp_path):
    with Child() as child:
        child.write(0, 0, 2048)
        rows_at, about = record(
            tmp_path / "s.parquet", child, {1: lambda: child.write(0, 0, 512)}, looks=2, clear=True
        )
    rows = [rows_at[1, 0, block] for block in range(4)]
    assert {(row["primary_used"], row["primary_unused"]) for row in rows} == {(0, 0)}
    soft = next(channel for channel in about.channels if channel.name == "soft_dirty")
    if soft.seen:
        assert [row["soft_dirty_used"] for row in rows] == [512, 0, 0, 0]
    else:
        assert "CONFIG_MEM_SOFT_DIRTY" in soft.why
        assert {row["soft_dirty_used"] + row["soft_dirty_unused"] for row in rows} == {0}


def test_damons_regions_are_the_blocks_that_they_cover(tmp_path):
    with Child() as child:
        child.write(0, 0, 1024)
        first = child.base[0]

        def regions():
            return [DamonRegion(0, 0, first, first + BLOCK, 10)]

        rows_at, _ = record(tmp_path / "s.parquet", child, {}, looks=2, regions=regions)
    rows = [rows_at[1, 0, block] for block in range(2)]
    assert [(row["damon_used"], row["damon_unused"]) for row in rows] == [(256, 256), (0, 512)]
    assert rows_at[0, 0, 0]["damon_used"] + rows_at[0, 0, 0]["damon_unused"] == 0, (
        "nothing was sampled before the first look"
    )


def test_what_it_cost_is_measured(tmp_path):
    with Child() as child:
        child.write(0, 0, 2048)
        _, about = record(tmp_path / "s.parquet", child, {1: lambda: child.write(1, 0, 1000)}, looks=4)
    cost = about.cost
    assert cost.looks == 4 and cost.own_cpu > 0 and 0 < cost.looking <= cost.seconds
    assert cost.longest_call > 0 and cost.target_faults >= 1000 and cost.target_cpu >= cost.target_system >= 0


def test_a_process_that_exits_ends_its_recording(tmp_path):
    child = subprocess.Popen(["sleep", "0.3"])
    with LiveChannels.open(child.pid, 0.05, kernel_memory=False, damon=False) as channels:
        about = record_samples(
            tmp_path / "s.parquet",
            channels,
            interval=0.05,
            duration=20,
            report=lambda *_: child.poll() and None,
        )
    child.wait()
    assert "the process exited while it was recorded" in about.notes


def test_a_process_that_execs_ends_its_recording(tmp_path):
    """The program that it is now has other memory at these addresses: no row is of it, and the end is told."""
    with (
        operated("plain") as child,
        LiveChannels.open(child.pid, 0.05, kernel_memory=False, damon=False) as channels,
    ):
        about = record_samples(
            tmp_path / "t.parquet", channels, interval=0.05, duration=20,
            report=lambda looks, blocks: child.tell("exec") if looks == 2 else None,
        )  # fmt: skip
        assert child.child.poll() is None
    assert about.cost.looks == 2 and about.cost.seconds < 15
    assert any("called exec while it was recorded" in note for note in about.notes)
    for look in Samples.open(tmp_path / "t.parquet").looks():
        assert ((look["address"] >= child.start) & (look["address"] < child.end)).sum() == 32


def test_requests_that_cannot_be(tmp_path):
    with LiveChannels.open(os.getpid(), 1, kernel_memory=False, damon=False) as channels:
        with pytest.raises(UsageError, match="interval"):
            record_samples(tmp_path / "s.parquet", channels, interval=0)
        (tmp_path / "s.parquet.recording").touch()
        with pytest.raises(UsageError, match="unfinished recording"):
            record_samples(tmp_path / "s.parquet", channels)
    with pytest.raises((TargetGone, UsageError)):
        LiveChannels.open((1 << 22) + 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet.recording"]


def test_sizes_never_count_more_than_is_present(tmp_path):
    """Whatever the machine's THP setting, a reader takes what the recorder wrote."""
    with Child() as child:
        child.write(0, 0, 1500)
        rows_at, _ = record(tmp_path / "s.parquet", child, {}, looks=2)
    assert np.sum([row["present"] for (look, *_), row in rows_at.items() if look == 1]) == 1500
    for row in rows_at.values():
        sizes = [count for name, count in row.items() if name.startswith("order_")]
        assert len(sizes) == 11 and sum(sizes) <= row["present"] <= 512


def test_the_operators_hot_memory_is_unknown_through_procfs_and_no_coverage_is_made(tmp_path):
    """128 MiB written once, then 16 of them over and over; nothing here shows which."""
    with (
        operated("hotcold") as child,
        LiveChannels.open(child.pid, 0.1, kernel_memory=False, damon=False) as channels,
    ):
        record_samples(tmp_path / "s.parquet", channels, interval=0.1, duration=0.5)
    comparison = compare_samples(
        Samples.open(tmp_path / "s.parquet"), ["khugepaged"], ["7.2"], time_scale=100
    )
    assert len([address for _, address in comparison.blocks if child.start <= address < child.end]) == 64
    assert comparison.hot.blocks == [] and comparison.rows[0].coverage is None
    assert comparison.notes[0].startswith("use is unknown")
