"""What the agent needs of a kernel: each lack by the option that mends it, and the reading of states only where it is asked for."""

import re

import pytest

from secondsight.lab.agent.needs import missing

NEEDED = {
    "sys/kernel/mm/transparent_hugepage/khugepaged": "CONFIG_TRANSPARENT_HUGEPAGE",
    "sys/kernel/tracing/kprobe_events": "CONFIG_KPROBE_EVENTS",
    "dev/ram1": "CONFIG_BLK_DEV_RAM", "proc/self/pagemap": "CONFIG_PROC_PAGE_MONITOR",
}  # fmt: skip
FOR_STATES = {"sys/kernel/btf/vmlinux": "CONFIG_DEBUG_INFO_BTF", "proc/kcore": "CONFIG_PROC_KCORE"}


def lacks(root, without=(), states=True):
    for path in {**NEEDED, **FOR_STATES}.keys() - set(without):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return [option for what in missing(states, root) for option in re.findall(r"CONFIG_\w+", what)]


def test_a_kernel_that_has_everything_lacks_nothing(tmp_path):
    assert lacks(tmp_path) == []


@pytest.mark.parametrize(("path", "option"), [*NEEDED.items(), *FOR_STATES.items()])
def test_each_lack_is_told_by_its_option(tmp_path, path, option):
    assert lacks(tmp_path, [path]) == [option]
    assert lacks(tmp_path, [path], states=False) == ([] if path in FOR_STATES else [option])


def test_a_kernel_that_has_nothing_lacks_it_in_order(tmp_path):
    assert lacks(tmp_path, {**NEEDED, **FOR_STATES}) == [*NEEDED.values(), *FOR_STATES.values()]
