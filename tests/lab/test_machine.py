"""A machine with more processors is the same machine under another name."""

from pathlib import Path

import pytest

from secondsight.errors import UsageError
from secondsight.lab import qemu
from secondsight.lab.kernels import Kernel
from secondsight.lab.machine import Launch
from secondsight.lab.machines import machine, machines, on_machine
from secondsight.scenario.verbs import Scenario, SpaceSpec


class Listener:
    def getsockname(self) -> str:
        return "/lab.sock"


def words(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(qemu, "bootable", lambda launch: launch.kernel.vmlinuz)
    kernel = Kernel("6.1", "6.1", "6.1", tmp_path / "vmlinuz", None)
    launch = Launch(tmp_path, tmp_path, kernel, "quiet", 512, Listener(), False)
    launch.initrd = "initrd"
    return machine(name).emulator.command(launch, machine(name))


def test_two_processors_take_turns_and_all_else_is_the_same(tmp_path, monkeypatch):
    one, two = words("npt", tmp_path, monkeypatch), words("npt-2cpu", tmp_path, monkeypatch)
    differing = [(a, b) for a, b in zip(one, two, strict=True) if a != b]
    assert differing == [("tcg", "tcg,thread=single"), ("1", "2")]
    assert one[one.index("-smp") + 1] == "1"


def test_two_nodes_share_the_memory_and_the_first_has_the_processor(tmp_path, monkeypatch):
    one, two = words("npt", tmp_path, monkeypatch), words("npt-numa", tmp_path, monkeypatch)
    assert [word for word in two if word not in one] == [
        "-object", "memory-backend-ram,id=node0,size=256M", "-numa", "node,nodeid=0,memdev=node0",
        "-object", "memory-backend-ram,id=node1,size=256M", "-numa", "node,nodeid=1,memdev=node1",
        "-numa", "cpu,node-id=0,socket-id=0",
    ]  # fmt: skip
    assert two[two.index("-m") + 1] == "512M"


def test_scenarios_get_the_mmu_of_the_machine_that_is_asked():
    scenario = Scenario([SpaceSpec("vm", 1)], [])
    assert [on_machine([scenario], name)[0].host.mmu for name in machines()] == [
        "npt", "shadow", "npt", "shadow", "npt", "ept", "ept-noad",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no machine is called 'npt-3cpu'; known are npt, "):
        on_machine([scenario], "npt-3cpu")
