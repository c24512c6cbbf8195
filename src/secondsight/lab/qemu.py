"""QEMU's software emulation (TCG) of an AMD machine: SVM with nested paging, or KVM's shadow paging.

TCG needs no right and no hardware, sets accessed bits in second-level tables as hardware does, and has no
VMX: for EPT see ``bochs``. One CPU, so that what the guest does has one order; with two they take turns in one thread.
"""

from __future__ import annotations

import mmap
import shutil
import socket
import struct
from pathlib import Path

from secondsight.lab import bzimage
from secondsight.lab.machine import Launch, Machine

__all__ = ["MACHINES", "Qemu"]


class Qemu:
    """``qemu-system-x86_64 -accel tcg``."""

    family = socket.AF_UNIX
    terminal = False

    def missing(self) -> str | None:
        """The packages to install, or None."""
        for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("setpriv", "util-linux")):
            if shutil.which(program) is None:
                return f"{program}; install the package {package}"
        return None

    def command(self, launch: Launch, machine: Machine) -> list[str]:
        """QEMU with two serial ports (console, line) and nothing else that is not asked for."""
        accelerator = "tcg" if machine.cpus == 1 else "tcg,thread=single"
        words = [
            "qemu-system-x86_64", "-M", "q35", "-accel", accelerator, "-smp", str(machine.cpus), "-cpu", machine.cpu,
            "-m", f"{launch.memory_mib}M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-chardev", f"file,id=console,path={launch.console}", "-serial", "chardev:console",
            "-chardev", f"socket,id=lab,path={launch.listener.getsockname()},server=off",
            "-serial", "chardev:lab",
            "-kernel", str(bootable(launch)), "-initrd", launch.initrd, "-append", launch.append,
        ]  # fmt: skip
        words += _nodes(launch.memory_mib, machine.nodes)
        if launch.qmp:
            words += [
                "-qmp",
                f"unix:{launch.folder / 'qmp.sock'},server=on,wait=off",
                "-device",
                "vmcoreinfo",
            ]
        return words


def _nodes(memory_mib: int, nodes: int) -> list[str]:
    """NUMA nodes, all but the first without a processor, and each of these with _FAR_MIB of the memory."""
    if nodes == 1:
        return []
    sizes = [memory_mib - _FAR_MIB * (nodes - 1), *[_FAR_MIB] * (nodes - 1)]
    words = []
    for i, size in enumerate(sizes):
        words += [
            "-object",
            f"memory-backend-ram,id=node{i},size={size}M",
            "-numa",
            f"node,nodeid={i},memdev=node{i}",
        ]
    return [*words, "-numa", "cpu,node-id=0,socket-id=0"]


def bootable(launch: Launch) -> Path:
    """The unpacked kernel where it has a PVH entry, for QEMU to enter directly: saves half of the boot.

    The entry is a note (XEN_ELFNOTE_PHYS32_ENTRY, type 18): name size 4, a 4- or 8-byte address, ``Xen``.
    """
    vmlinux = bzimage.unpack(launch.kernel.vmlinuz, launch.cache / "vmlinux")
    with vmlinux.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as image:
        if any(image.find(struct.pack("<III4s", 4, size, 18, b"Xen")) >= 0 for size in (4, 8)):
            return vmlinux
    return launch.kernel.vmlinuz


# 4-level paging, as Bochs has: with la57 the root of the second-level table would be one level higher.
# No AVX: saving its registers around a VM of KVM's is not to be relied on (NumPy sorted wrongly after one had run).
CPU = "max,la57=off,avx=off"

#: What fits nowhere else goes there: as little as makes a node.
_FAR_MIB = 256

_ONE_CPU = [
    Machine(
        "npt",
        "AMD nested paging (QEMU TCG, kvm_amd npt=1)",
        Qemu(),
        cpu=CPU,
        modules={"kvm-amd": "npt=1", "brd": "rd_nr=3 rd_size=524288"},
        check={"/sys/module/kvm_amd/parameters/npt": "Y"},
    ),
    Machine(
        "shadow",
        "shadow paging (QEMU TCG, kvm_amd npt=0)",
        Qemu(),
        cpu=CPU,
        modules={"kvm-amd": "npt=0", "brd": "rd_nr=3 rd_size=524288"},
        check={"/sys/module/kvm_amd/parameters/npt": "N"},
    ),
]

MACHINES = [*_ONE_CPU, *(machine.with_cpus(2) for machine in _ONE_CPU), _ONE_CPU[0].with_nodes(2)]
