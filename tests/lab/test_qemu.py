"""QEMU's machines: what is asked of it, word by word, and what is not there said with its package."""

import shutil
import socket
import struct

import pytest

from secondsight.lab import bzimage, qemu
from secondsight.lab.kernels import Kernel
from secondsight.lab.machine import Launch
from secondsight.lab.qemu import MACHINES, Qemu

BY_NAME = {machine.name: machine for machine in MACHINES}


def launch(tmp_path, *, image=b"no entry of its own", qmp=False, memory=1024):
    """What is to be booted; the kernel is unpacked to *image*."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "vmlinux").write_bytes(image)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "line.sock"))
    kernel = Kernel("7.3", "7.3.4", "7.3.4-1", tmp_path / "vmlinuz", None)
    made = Launch(tmp_path, tmp_path, kernel, "quiet", memory, listener, qmp)
    made.initrd = str(tmp_path / "initrd")
    return made, listener


@pytest.fixture(autouse=True)
def unpacked(monkeypatch):
    monkeypatch.setattr(bzimage, "unpack", lambda packed, folder: folder.parent / "vmlinux")


def words(tmp_path, name="npt", **options):
    made, listener = launch(tmp_path, **options)
    with listener:
        return Qemu().command(made, BY_NAME[name])


def after(command, word):
    return [following for word_, following in zip(command, command[1:], strict=False) if word_ == word]


def test_nothing_is_emulated_that_is_not_asked_for(tmp_path):
    command = words(tmp_path)
    assert command[0] == "qemu-system-x86_64" and {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(
        command
    )
    assert (
        after(command, "-accel") == ["tcg"]
        and after(command, "-smp") == ["1"]
        and after(command, "-m") == ["1024M"]
    )
    assert "la57=off" in after(command, "-cpu")[0] and "avx=off" in after(command, "-cpu")[0]
    assert after(command, "-append") == ["quiet"] and after(command, "-initrd") == [str(tmp_path / "initrd")]
    # The console first, the line to the agent second.
    assert after(command, "-serial") == ["chardev:console", "chardev:lab"]
    assert f"socket,id=lab,path={tmp_path / 'line.sock'},server=off" in after(command, "-chardev")
    assert "-qmp" not in command and "-numa" not in command


def test_two_processors_take_turns_in_one_thread(tmp_path):
    two = next(machine.name for machine in MACHINES if machine.cpus == 2 and machine.name.startswith("npt"))
    command = words(tmp_path, two)
    assert after(command, "-accel") == ["tcg,thread=single"] and after(command, "-smp") == ["2"]


def test_memory_is_cut_into_nodes_and_the_first_has_the_processor(tmp_path):
    far = next(machine.name for machine in MACHINES if machine.nodes == 2)
    command = words(tmp_path, far, memory=1024)
    assert after(command, "-object") == [
        "memory-backend-ram,id=node0,size=768M",
        "memory-backend-ram,id=node1,size=256M",
    ]
    assert after(command, "-numa") == [
        "node,nodeid=0,memdev=node0",
        "node,nodeid=1,memdev=node1",
        "cpu,node-id=0,socket-id=0",
    ]


def test_a_guest_that_is_read_from_outside_has_a_socket_and_a_vmcoreinfo(tmp_path):
    command = words(tmp_path, qmp=True)
    assert after(command, "-qmp") == [f"unix:{tmp_path / 'qmp.sock'},server=on,wait=off"]
    assert "vmcoreinfo" in after(command, "-device")


@pytest.mark.parametrize("size", [4, 8])
def test_a_kernel_with_an_entry_of_its_own_is_entered_there(tmp_path, size):
    note = struct.pack("<III4s", 4, size, 18, b"Xen\0")
    assert after(words(tmp_path, image=b"\0" * 100 + note), "-kernel") == [str(tmp_path / "vmlinux")]
    other = struct.pack("<III4s", 4, size, 17, b"Xen\0")
    assert after(words(tmp_path / "b", image=b"\0" * 100 + other), "-kernel") == [
        str(tmp_path / "b" / "vmlinuz")
    ]


def test_machines_promise_the_mmu_that_their_module_is_told(tmp_path):
    for machine in MACHINES:
        npt = machine.modules["kvm-amd"]
        assert machine.check == {"/sys/module/kvm_amd/parameters/npt": "Y" if npt == "npt=1" else "N"}
        assert ("shadow" in machine.name) == (npt == "npt=0")
    assert len(BY_NAME) == len(MACHINES) == 5


@pytest.mark.parametrize(
    ("program", "package"), [("qemu-system-x86_64", "qemu-system-x86"), ("setpriv", "util-linux")]
)
def test_what_is_not_there_is_said_with_its_package(monkeypatch, program, package):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else f"/bin/{name}")
    assert Qemu().missing() == f"{program}; install the package {package}"
    monkeypatch.setattr(qemu.shutil, "which", lambda name: f"/bin/{name}")
    assert Qemu().missing() is None
