"""In the lab's guest: a host's rows under cgroup v2, whose counters are of a subtree, against memory.stat and smaps_rollup."""

from pathlib import Path

import pytest

from secondsight.errors import MissingPart
from secondsight.lab import initramfs, kernels
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files
from secondsight.mm import profiles

pytestmark = pytest.mark.kernel

SUPPORT = Path(__file__).parents[1] / "support"
MIB = 1 << 20


@pytest.fixture(scope="module")
def answer():
    try:
        kernel = kernels.resolve("6.12")
    except MissingPart as missing:
        pytest.skip(str(missing))
    files = {
        **agent_files(),
        **initramfs.program(SUPPORT / "guests/host.py"),
        "/app/numba.py": SUPPORT / "guests/numba.py",
        "/app/operators.py": SUPPORT / "operators.py",
        "/app/secondsight/trace/__init__.py": b"",
        "/app/secondsight/trace/writer.py": SUPPORT / "guests/writer.py",
        "/app/zstandard.py": b"",
        # Found in their folder, imported by nobody.
        **{
            f"/app/secondsight/mm/profiles/{file.name}": file
            for file in Path(profiles.__file__).parent.glob("v*.py")
        },
    }
    with machine("npt").boot(kernel, files, main=["/app/main.py"], append="no_timer_check") as guest:
        yield guest.receive(900)


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
