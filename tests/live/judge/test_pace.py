"""When khugepaged comes, from its knobs and its list."""

import dataclasses

import msgspec
import pytest

from secondsight.bits import pte as bits
from secondsight.live.judge.explain import explain
from secondsight.live.judge.pace import Pace, duration, pace, words
from secondsight.live.read.switches import Switches
from secondsight.mm.config import Knobs
from support.snapshots import KNOWN, columns, snapshot


def used(**changes):
    memory = columns(2)
    memory.pte[:] |= bits.ACCESSED
    memory.pte[1, 500:] = 0
    taken = snapshot(memory, **changes)
    switches = Switches(enabled=taken.header.enabled, enabled_size="inherit", shmem_enabled="never")
    header = msgspec.structs.replace(taken.header, switches=switches)
    return dataclasses.replace(taken, header=header)


def test_the_pace():
    """106 blocks at 4096 pages every 10 s: 13.25 rounds; 1 GiB of others before it, 64 rounds."""
    rates = pace(Knobs(), 106, 1 << 18)
    assert rates.own == pytest.approx(132.5) and rates.until == pytest.approx(640)
    assert pace(Knobs(), 106, None).until is None
    assert [duration(s) for s in (40, 640, 2400, 12600)] == ["40 s", "11 minutes", "40 minutes", "3.5 hours"]


def test_the_pace_in_words():
    taken = used()
    assert "when it comes next is unknown" in explain(taken).pace
    header = msgspec.structs.replace(taken.header, surroundings=msgspec.structs.replace(KNOWN, ahead=1 << 20))
    assert "about 43 minutes until its next visit" in explain(dataclasses.replace(taken, header=header)).pace
    assert explain(used(enabled="never")).pace == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 minutes"), (5399, "90 minutes"), (5400, "1.5 hours"), (86400, "24.0 hours")],
)  # fmt: skip
def test_a_duration_is_said_in_the_unit_that_fits_it(seconds, said):
    assert duration(seconds) == said


def test_twice_the_sleep_or_half_the_pages_is_twice_the_time():
    plain = pace(Knobs(), 64, 4096)
    assert (plain.own, plain.until) == (80, 10), "64 blocks are eight rounds, and one round comes before them"
    for slower in (Knobs(scan_sleep_millisecs=20_000), Knobs(pages_to_scan=2048)):
        assert pace(slower, 64, 4096) == Pace(2 * plain.own, 2 * plain.until)


@pytest.mark.parametrize(
    ("registered", "ahead", "said"),
    [
        (False, 4096, "it never comes until it knows the process"),
        (True, None, "when it comes next is unknown (its list is only in kernel memory)"),
        (True, 4096, "about 10 s until its next visit, at the most"),
        (None, 4096, "about 10 s until its next visit, at the most"),
    ],
)
def test_when_it_comes_depends_on_its_list(registered, ahead, said):
    sentence = words(pace(Knobs(), 64, ahead), Knobs(), registered)
    head = "looks at 4,096 pages every 10 s: this process's eligible blocks take it about 80 s"
    assert sentence == f"{head}; {said}"
