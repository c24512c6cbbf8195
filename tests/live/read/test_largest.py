"""The processes with the most memory, from a /proc laid out by hand."""

import os

import pytest

from secondsight.errors import UsageError
from secondsight.live.read import largest


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """Processes by number with their resident pages; opening one gives its number, and 13 has gone."""

    def opened(pid):
        if pid == 13:
            raise UsageError("--pid 13: there is no such process")
        return pid

    monkeypatch.setattr(largest.Process, "open", staticmethod(opened))
    for pid, pages in {11: 600, 12: 9000, 13: 50_000, 14: 511, 15: 512, os.getpid(): 10**6}.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "statm").write_text(f"999999 {pages} 5 1 0 1 0\n")
    (tmp_path / "16").mkdir()  # it went while it was listed
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "statm").write_text("")
    (tmp_path / "self").mkdir()
    return tmp_path


def test_the_largest_come_first_and_ours_and_the_small_not_at_all(proc):
    assert largest.largest_processes(proc=proc) == [12, 11, 15], "511 pages hold no block"


def test_of_those_that_may_not_be_opened_none_is_made_up_for(proc):
    assert largest.largest_processes(2, proc) == [12], "13 was among the two largest"
    assert largest.largest_processes(0, proc) == []
