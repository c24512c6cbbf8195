"""Every machine boots every kernel once: KVM is there, with the MMU that the machine promises."""

import os

import pytest

from secondsight.lab import initramfs, kernels
from secondsight.lab.fetch import fetch
from secondsight.lab.guest import GuestDied
from secondsight.lab.machines import machine, machines

pytestmark = pytest.mark.kernel

# Makes a VM with one page of memory and one vCPU; says what the kernel's parameters are.
PROGRAM = """
import fcntl, mmap, os, platform, struct
from pathlib import Path
from secondsight.lab.wire import Port
kvm = os.open("/dev/kvm", os.O_RDWR)
vm = fcntl.ioctl(kvm, 0xAE01, 0)
memory = mmap.mmap(-1, 4096)
memory[:3] = b"\\xf4\\xf4\\xf4"  # hlt
import ctypes
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(vm, 0x4020AE46, struct.pack("<IIQQQ", 0, 0, 0x1000, 4096, address))
vcpu = fcntl.ioctl(vm, 0xAE41, 0)
run = mmap.mmap(vcpu, fcntl.ioctl(kvm, 0xAE04))
sregs = bytearray(fcntl.ioctl(vcpu, 0x8138AE83, bytes(312)))
sregs[0:8] = bytes(8); sregs[12:14] = bytes(2)  # cs: base and selector 0
fcntl.ioctl(vcpu, 0x4138AE84, bytes(sregs))
regs = bytearray(fcntl.ioctl(vcpu, 0x8090AE81, bytes(144)))
regs[128:144] = struct.pack("<QQ", 0x1000, 2)
fcntl.ioctl(vcpu, 0x4090AE82, bytes(regs))
fcntl.ioctl(vcpu, 0xAE80, 0)
names = ("kvm_amd/parameters/npt", "kvm_intel/parameters/ept", "kvm_intel/parameters/eptad")
paths = {name: Path("/sys/module") / name for name in names}
Port().send({
    "release": platform.release(), "exit_reason": struct.unpack_from("<I", run, 8)[0],
    "parameters": {name: path.read_text().strip() for name, path in paths.items() if path.exists()},
    "cpus": os.cpu_count(), "swap": Path("/proc/swaps").read_text(), "traces": os.path.exists("/sys/kernel/tracing/events/huge_memory"),
})
"""
HALTED = 5  # KVM_EXIT_HLT
PROMISED = {
    "npt": {"kvm_amd/parameters/npt": "Y"},
    "shadow": {"kvm_amd/parameters/npt": "N"},
    "ept": {"kvm_intel/parameters/ept": "Y", "kvm_intel/parameters/eptad": "Y"},
    "ept-noad": {"kvm_intel/parameters/ept": "Y", "kvm_intel/parameters/eptad": "N"},
}


def kernel(name: str) -> kernels.Kernel:
    return fetch(name)


@pytest.mark.parametrize("name", os.environ.get("SECONDSIGHT_KERNELS", "6.1 6.12 newest").split())
@pytest.mark.parametrize("mmu", machines())
def test_a_vm_runs_on_the_promised_mmu(mmu: str, name: str) -> None:
    files = {"/app/main.py": PROGRAM.encode(), **initramfs.package_sources(["secondsight.lab.wire"])}
    with machine(mmu).boot(kernel(name), files, main=["/app/main.py"]) as guest:
        answer = guest.receive(60 * machine(mmu).slow)
        assert guest.receive(30) is None
    assert answer["release"] == kernel(name).release
    assert answer["exit_reason"] == HALTED
    assert answer["parameters"] == PROMISED[machine(mmu).mmu]
    assert answer["cpus"] == machine(mmu).cpus
    assert "/dev/ram0" in answer["swap"] and answer["traces"]


def test_a_guest_that_panics_is_told_with_its_console() -> None:
    program = b"open('/proc/sysrq-trigger', 'w').write('c')"
    with (
        machine("npt").boot(kernel("6.1"), {"/app/main.py": program}, main=["/app/main.py"]) as guest,
        pytest.raises(
            GuestDied, match="its kernel is lost: Kernel panic - not syncing: sysrq triggered crash"
        ),
    ):
        guest.receive(60)


def test_two_guests_run_side_by_side() -> None:
    files = {"/app/main.py": PROGRAM.encode(), **initramfs.package_sources(["secondsight.lab.wire"])}
    with (
        machine("npt").boot(kernel("6.1"), files, main=["/app/main.py"]) as first,
        machine("shadow").boot(kernel("6.1"), files, main=["/app/main.py"]) as second,
    ):
        assert second.receive(120)["parameters"] == PROMISED["shadow"]
        assert first.receive(120)["parameters"] == PROMISED["npt"]
