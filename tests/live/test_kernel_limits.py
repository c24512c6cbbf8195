"""In the lab's guest: ``collapse`` under cgroup v2's limits, and hot memory first where DAMON shows it."""

from pathlib import Path

import pytest

from secondsight.errors import MissingPart
from secondsight.lab import initramfs, kernels
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files

pytestmark = pytest.mark.kernel

SUPPORT = Path(__file__).parents[1] / "support"
MIB, BLOCK = 1 << 20, 2 << 20


@pytest.fixture(scope="module")
def answer():
    try:
        kernel = kernels.resolve("6.12")
    except MissingPart as missing:
        pytest.skip(str(missing))
    files = {
        **agent_files(),
        **initramfs.program(SUPPORT / "guests/limits.py"),
        "/app/numba.py": SUPPORT / "guests/numba.py",
        "/app/operators.py": SUPPORT / "operators.py",
        # What writes Parquet and reads compressed files stays outside.
        "/app/secondsight/trace/__init__.py": b"",
        "/app/secondsight/trace/writer.py": SUPPORT / "guests/writer.py",
        "/app/zstandard.py": b"",
    }
    # A host that others use starves the emulated timer until the kernel, checking it, gives up.
    with machine("npt").boot(kernel, files, main=["/app/main.py"], append="no_timer_check") as guest:
        yield guest.receive(900)


@pytest.mark.parametrize(("name", "event"), [("max", "max"), ("high", "high")])
def test_a_limit_of_v2_is_not_met(answer, name, event):
    done = answer[name]
    assert done["failed"] and 0 < done["collapsed"] == done["confirmed"] < 30
    assert done["huge"] == done["collapsed"] * BLOCK
    assert done["added"] == done["collapsed"] * 504 * 4096 and abs(done["grown"] - done["added"]) <= 4 * MIB
    assert done["current"] <= 40 * MIB and done["events"][event] == "0", "no charge met it"
    assert any(f"memory.{name} of cgroup /memory-{name}" in reason for reason in done["left"])
    assert done["alive"]


def test_hot_memory_comes_first_where_damon_shows_it(answer):
    """Blocks 56 to 63 of 64 are in use; the rest was written once."""
    told = answer["heat"]
    assert told["order"].startswith("hot first, by DAMON over"), told
    assert set(told["hot"]) >= set(range(57, 64)) and min(told["hot"]) >= 54
    assert min(told["first"]) >= 54 and told["collapsed"] == 8
    assert told["kdamonds"] == "0", "taken down again"
