"""Ageing through DAMON's files, in a tree of the test's own: a region for each page, and nothing left behind."""

import os
from pathlib import Path

import pytest

from secondsight.lab.agent import ageing, libc
from secondsight.lab.agent.ageing import age
from secondsight.lab.agent.libc import SysError

ADMIN = "/sys/kernel/mm/damon/admin/kdamonds"


@pytest.fixture
def damon(monkeypatch):
    """What is written, in order; the thread is ours, which has slept often enough, and *state* is what DAMON says it is."""
    written, state = [], {"state": "on"}
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == ADMIN or real(path))
    monkeypatch.setattr(
        ageing, "put", lambda path, value: written.append((str(path).removeprefix(f"{ADMIN}/"), value))
    )
    monkeypatch.setattr(
        ageing, "read", lambda path: str(os.getpid()) if path.name == "pid" else state["state"]
    )
    return written, state


def test_a_kernel_without_damon_ages_nothing(monkeypatch):
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) != ADMIN and real(path))
    monkeypatch.setattr(ageing, "put", lambda path, value: pytest.fail("writes"))
    assert age(1, [3, 4]) == ""


def test_each_page_is_a_region_of_its_own_address(damon):
    written, _ = damon
    assert age(77, [513, 3, 3]) == "0:3 1:1"
    values = dict(written)
    target = "0/contexts/0/targets/0"
    assert values[f"{target}/pid_target"] == 77 and values[f"{target}/regions/nr_regions"] == 2
    for i, page in enumerate((3, 513)):
        start = libc.AREA + page * libc.PAGE
        assert (values[f"{target}/regions/{i}/start"], values[f"{target}/regions/{i}/end"]) == (
            start,
            start + libc.PAGE,
        )
    assert values["0/contexts/0/operations"] == "fvaddr"


def test_damon_is_switched_on_once_off_again_and_taken_away(damon):
    written, _ = damon
    age(77, [1])
    assert [value for name, value in written if name == "0/state"] == ["on", "off"]
    assert written[0] == ("nr_kdamonds", 1) and written[-1] == ("nr_kdamonds", 0)


def test_a_damon_that_stopped_is_an_error_and_is_taken_away_all_the_same(damon):
    written, state = damon
    state["state"] = "off"
    with pytest.raises(SysError, match="DAMON stopped by itself"):
        age(77, [1])
    assert written[-1] == ("nr_kdamonds", 0)
