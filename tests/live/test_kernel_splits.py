"""In the lab's guest: who splits huge pages, told by the function tracer, against vmstat's counts of the same."""

from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import initramfs, kernels
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files

pytestmark = pytest.mark.kernel

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def answer():
    try:
        kernel = kernels.resolve("6.12")
    except MissingDependency as missing:
        pytest.skip(str(missing))
    files = {**agent_files(), **initramfs.program(SUPPORT / "guests/splits.py")}
    with machine("npt").boot(kernel, files, main=["/app/main.py"], append="no_timer_check") as guest:
        yield guest.receive(600)


def test_each_split_is_told_with_its_caller(answer):
    assert answer["after"]["thp_fault_alloc"] - answer["before"]["thp_fault_alloc"] == 4
    ours = [each for each in answer["split"] if each["kind"] == "mapping"]
    counted = answer["after"]["thp_split_pmd"] - answer["before"]["thp_split_pmd"]
    assert sum(each["count"] for each in ours) == counted >= 2, answer
    assert answer["lost"] == 0
    assert any("unmapped or dropped" in each["occasion"] for each in ours), ours
    assert any("mapping was cut" in each["occasion"] or "protected" in each["occasion"] for each in ours), (
        ours
    )
    # MADV_FREE of a part splits the page itself.
    pages = [each for each in answer["split"] if each["kind"] == "page"]
    assert (
        sum(each["count"] for each in pages)
        >= answer["after"]["thp_split_page"] - answer["before"]["thp_split_page"]
        >= 1
    )


def test_nothing_is_left(answer):
    assert answer["instances"] == []
