"""What prctl keeps from huge pages: what status leaves in doubt, whom it refuses, and what is open under other switches."""

import ctypes
import dataclasses
import os
from pathlib import Path

import msgspec
import pytest

from secondsight.bits import pte as bits
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import THP_DISABLED
from secondsight.live.read.switches import Switches
from secondsight.live.read.thp_disabled import ThpDisabled, from_status, refusal, thp_enabled
from support.snapshots import columns, snapshot


def test_the_status_line():
    assert thp_enabled(b"Name:\tx\nTHP_enabled:\t1\n") is True
    assert thp_enabled(b"THP_enabled:\t0\nthreads: 1\n") is False
    assert thp_enabled(b"Name:\tx\n") is None


@pytest.mark.parametrize(
    ("line", "release", "disabled"),
    [
        (b"THP_enabled:\t0\n", "7.3.4", ThpDisabled.ALL),
        (b"THP_enabled:\t0\n", "6.1.0-57-amd64", ThpDisabled.ALL),
        (b"THP_enabled:\t1\n", "6.17.13+deb14-amd64", ThpDisabled.NONE),
        (b"THP_enabled:\t1\n", "6.18", None),
        (b"THP_enabled:\t1\n", "7.0-rc1", None),
        (b"", "4.19.0", None),
    ],
)
def test_what_status_leaves_no_doubt_about(line, release, disabled):
    assert from_status(b"Name:\tx\n" + line, release) is disabled


def test_status_of_this_process_follows_prctl():
    libc = ctypes.CDLL(None)

    def said():
        return from_status(Path("/proc/self/status").read_bytes(), os.uname().release)

    assert said() is not ThpDisabled.ALL
    assert libc.prctl(41, 1, 0, 0, 0) == 0
    try:
        assert said() is ThpDisabled.ALL
    finally:
        libc.prctl(41, 0, 0, 0, 0)


def taken(disabled, flags=(), enabled="madvise", eligible=False):
    """Two blocks in use, under switches and a prctl, with the kernel's answer in smaps."""
    read = columns(2)
    read.pte[:] |= bits.ACCESSED
    shot = snapshot(read, flags=flags, enabled=enabled)
    (vma,) = shot.header.mappings
    header = msgspec.structs.replace(
        shot.header,
        mappings=(msgspec.structs.replace(vma, eligible=eligible),),
        switches=Switches(enabled=enabled, enabled_size="inherit", shmem_enabled="never"),
        surroundings=msgspec.structs.replace(shot.header.surroundings, thp_disabled=disabled),
    )
    return dataclasses.replace(shot, header=header)


@pytest.mark.parametrize(
    ("disabled", "flags", "status", "others"),
    [
        (ThpDisabled.NONE, (), "succeeded", ()),
        (ThpDisabled.ALL, (), "ineligible", ()),
        (ThpDisabled.ALL, ("hg",), "ineligible", ()),
        (ThpDisabled.NOT_ADVISED, (), "ineligible", ()),
        (ThpDisabled.NOT_ADVISED, ("hg",), "succeeded", ()),
        (None, (), "succeeded", ("ineligible",)),
    ],
)
def test_under_other_switches_it_refuses_as_it_did_and_what_is_unread_stays_open(
    disabled, flags, status, others
):
    advised = "hg" in flags and disabled is not ThpDisabled.ALL
    answer = explain(taken(disabled, flags, eligible=advised), ["enabled=always"])
    block = answer.blocks[0]
    assert (block.status, block.others) == (status, others)
    assert block.known == (not others) and (THP_DISABLED in block.unread) == bool(others)
    if status == "ineligible":
        assert "prctl PR_SET_THP_DISABLE" in block.reason and "likely" not in block.reason


def test_what_the_kernel_says_itself_leaves_nothing_open():
    now = explain(taken(None, ("hg",), eligible=True)).blocks[0]
    assert (now.status, now.known) == ("succeeded", True)
    assert refusal(taken(None).header.mappings[0], None) == ""
