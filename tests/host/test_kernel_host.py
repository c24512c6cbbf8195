"""In the lab's guest: a host's rows under cgroup v2, whose counters are of a subtree, against memory.stat and smaps_rollup."""

import pytest

from support.live_guest import answered

pytestmark = pytest.mark.kernel

MIB = 1 << 20


@pytest.fixture(scope="module")
def answer():
    with answered("host.py", "6.12", 900) as reply:
        yield reply


def test_a_group_is_what_is_charged_there_and_mapped(answer):
    assert set(answer["rows"]) == {"/outer/inner", "/beside"}
    for path, stat in answer["stat"].items():
        resident, _, processes, _, _ = answer["rows"][path]
        assert resident == stat["anon"] + stat["file_mapped"] >= 64 * MIB, path
        assert processes == 1
    assert answer["trouble"] == {}


def test_a_process_is_its_rss(answer):
    assert len(answer["processes"]) == 2
    for resident, rss in answer["processes"].values():
        assert resident == rss


def test_the_tightest_limit_is_the_parents(answer):
    _, _, _, headroom, where = answer["rows"]["/outer/inner"]
    assert 0 < headroom < 512 * MIB and where.rstrip("/").endswith("/outer")
    assert answer["rows"]["/beside"][3] is None


def test_what_could_be_huge_if_the_switches_said_so(answer):
    # The memory of both is whole blocks; whether the memfd's may be huge is asked of shmem_enabled.
    for path in answer["rows"]:
        assert answer["could"][path][1] >= 60 * MIB, answer
