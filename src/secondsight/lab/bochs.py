"""Bochs, an interpreter of an Intel machine: VMX with EPT, with and without EPT accessed bits.

Bochs is slow (tens of millions of instructions a second), so nothing is left to it that can be done beforehand: the
kernel comes unpacked, and it, the initramfs, the page tables and the boot parameters are read by Bochs itself into
the guest's memory (``optramimage``). All that runs before the kernel is the BIOS and a floppy's first sector.

    guest memory                                                       image file
    0x0007c00  first sector (from the floppy)
    0x0050000  boot_params          0x051000  command line             first block, from 0x50000 on
    0x0052000  PML4  0x053000 PDPT  0x054000  four page directories:
               the first 4 GiB, identity-mapped by 2 MiB pages
    0x0058000  GDT  0x058020 its pseudo-descriptor
    0x0058028  entry  0x058030 last pad's mark  0x058038, 0x05803c blocks of kernel and initramfs
    0x1000000  the kernel, as its program headers lay it out           blocks 33 ...
    0x6000000  pads                                                    blocks 1 to 32
    0x8000000  the initramfs                                           after the kernel

The image is not laid out like the memory because Bochs gives a block of 128 KiB of the guest a place in its own memory
when it is first touched, while ``optramimage`` fills places in their order. The image starts in the block of the boot
parameters, the first to get a place; the BIOS then uses up some pads by touching memory; the first sector touches
scratch memory until the last pad is used up, and then the kernel's and the initramfs's blocks in order, which so
meet their content.

(64-bit boot protocol: Documentation/arch/x86/boot.rst; boot_params: arch/x86/include/uapi/asm/bootparam.h)
"""

from __future__ import annotations

import shutil
import socket
import struct
from pathlib import Path

from secondsight.errors import InputError, SecondSightError
from secondsight.geometry import PMD_SHIFT
from secondsight.lab import bzimage
from secondsight.lab.machine import Launch, Limits, Machine

__all__ = ["MACHINES", "Bochs", "boot_page", "boot_sector", "flat", "image"]

PARAMS = 0x50000
KERNEL = 0x1000000
SCRATCH = 0x6000000
INITRD = 0x8000000
BLOCK = 128 << 10  # what Bochs gives a place at once (BX_MEM_BLOCK_LEN)
PADS = 32  # more than the BIOS touches
PAD_MARK = 0x53656353696768  # in the first eight bytes of a pad, plus its number
BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
VGA_BIOS = Path("/usr/share/bochs/VGABIOS-lgpl-latest")

# The first sector, assembled from boot_sector.S beside this file.
SECTOR = bytes.fromhex(
    "b800508ed88ec0bfd00231ed6631db66b820e8000066ba50414d5366b914000000cd15720983c714456685db75e189e8"
    "a2e801fae4920c02e692660f011620800f20e00c200f22e066b8002005000f22d866b9800000c00f3280cc010f300f20"
    "c0660d010000800f22c066ea727c00001000b8180000008ed88ec08ed0bf00000006488b0781c700000200483b042530"
    "80050075edbf000000018b0c2538800500e820000000bf000000088b0c253c800500e80f000000be00000500488b0425"
    "28800500ffe08a0781c700000200e2f6c3"
)


#: Bochs refuses more (host_size "is out of range 1 to 2048").
_MOST_MIB = 2048


def boot_sector() -> bytes:
    """A floppy image (1.44 MB) whose first sector enters the kernel."""
    return (SECTOR.ljust(510, b"\0") + b"\x55\xaa").ljust(1440 * 1024, b"\0")


def boot_page(setup: bytes, command_line: str, kernel_size: int, initrd_size: int, entry: int) -> bytes:
    """What lies at 0x50000: boot parameters, command line, page tables, GDT, and what the first sector reads.

    *setup*: the first kilobyte of the bzImage, for its setup header; sizes are in bytes; *entry* is a physical
    address.

    :raises SecondSightError: a command line that is too long.
    """
    line = command_line.encode() + b"\0"
    if len(line) > 2048:
        raise SecondSightError(f"the kernel's command line is {len(line)} bytes long; it takes 2047")
    page = bytearray(0x9000)
    # The setup header runs from 0x1f1 to 0x202 + the byte at 0x201 (the jump over it).
    end = 0x202 + setup[0x201]
    page[0x1F1:end] = setup[0x1F1:end]
    page[0x210] = 0xFF  # type_of_loader: none that is registered
    page[0x211] |= 0x01  # loadflags: LOADED_HIGH
    struct.pack_into("<II", page, 0x218, INITRD, initrd_size)  # ramdisk_image, ramdisk_size
    struct.pack_into("<I", page, 0x228, PARAMS + 0x1000)  # cmd_line_ptr
    page[0x1000 : 0x1000 + len(line)] = line
    struct.pack_into("<Q", page, 0x2000, PARAMS + 0x3000 | 3)
    for i in range(4):
        struct.pack_into("<Q", page, 0x3000 + 8 * i, PARAMS + 0x4000 + 0x1000 * i | 3)
    for i in range(2048):
        struct.pack_into("<Q", page, 0x4000 + 8 * i, i << PMD_SHIFT | 0x83)
    struct.pack_into("<QQQQ", page, 0x8000, 0, 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF)
    struct.pack_into("<HI", page, 0x8020, 31, PARAMS + 0x8000)
    struct.pack_into(
        "<QQII", page, 0x8028, entry, PAD_MARK + PADS, -(-kernel_size // BLOCK), -(-initrd_size // BLOCK)
    )
    return bytes(page)


def image(page: bytes, kernel: bytes) -> bytes:
    """The image without the initramfs, which follows it: *page* to its block's end, the pads, *kernel*."""
    low = page.ljust(BLOCK - PARAMS % BLOCK, b"\0")
    pads = (struct.pack("<Q", PAD_MARK + i).ljust(BLOCK, b"\0") for i in range(1, PADS + 1))
    return b"".join([low, *pads, kernel, bytes(-len(kernel) % BLOCK)])


def flat(elf: bytes, source: str = "vmlinux") -> tuple[bytes, int]:
    """(bytes, entry) of the kernel *elf* as it lies in memory from KERNEL on, its zeroed memory included.

    :raises InputError: an ELF that is no x86-64 kernel; it names *source*.
    """
    if elf[:6] != b"\x7fELF\x02\x01" or len(elf) < 64 or struct.unpack_from("<H", elf, 18)[0] != 62:
        raise InputError(source, "byte 0", "not an x86-64 kernel")
    entry, table = struct.unpack_from("<QQ", elf, 24)
    size, count = struct.unpack_from("<HH", elf, 54)
    memory = bytearray()
    for i in range(count):
        kind, _, offset, _, address, length, memory_size = struct.unpack_from(
            "<IIQQQQQ", elf, table + size * i
        )
        if kind != 1:
            continue
        if (
            not KERNEL <= address <= address + memory_size <= SCRATCH
            or length > memory_size
            or offset + length > len(elf)
        ):
            raise InputError(
                source, f"byte {table + size * i}", f"a segment at {address:#x} is not within 16 to 96 MiB"
            )
        start = address - KERNEL
        memory.extend(bytes(max(0, start + memory_size - len(memory))))
        memory[start : start + length] = elf[offset : offset + length]
    if not 0 <= entry - KERNEL < len(memory):
        raise InputError(source, "byte 24", f"the entry {entry:#x} is outside of the kernel")
    return bytes(memory), entry


class Bochs:
    """``bochs-bin``, as Debian packages it (2.7, with its debugger: hence the script that says ``c``)."""

    family = socket.AF_INET
    terminal = True

    def missing(self) -> str | None:
        """The packages to install, or None."""
        for program, package in (("bochs-bin", "bochs"), ("setpriv", "util-linux")):
            if shutil.which(program) is None:
                return f"{program}; install the packages bochs, bochs-term, bochsbios and vgabios ({package})"
        for path, package in ((BIOS, "bochsbios"), (VGA_BIOS, "vgabios")):
            if not path.exists():
                return f"{path}; install the package {package}"
        return None

    def command(self, launch: Launch, machine: Machine) -> list[str]:
        """Bochs with a floppy that enters the kernel, its memory filled beforehand."""
        vmlinux = bzimage.unpack(launch.kernel.vmlinuz, launch.cache / "vmlinux")
        kernel, entry = flat(vmlinux.read_bytes(), str(vmlinux))
        with launch.kernel.vmlinuz.open("rb") as handle:
            setup = handle.read(1024)
        page = boot_page(setup, launch.append, len(kernel), Path(launch.initrd).stat().st_size, entry)
        floppy = launch.folder / "boot.img"
        floppy.write_bytes(boot_sector())
        rc = launch.folder / "bochsrc"
        port = launch.listener.getsockname()[1]
        rc.write_text(f"""\
cpu: model={machine.cpu}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={launch.memory_mib}, host={launch.memory_mib}
romimage: file={BIOS}
vgaromimage: file={VGA_BIOS}
optramimage1: file={launch.memory_file(image(page, kernel), Path(launch.initrd))}, address={PARAMS:#x}
pci: enabled=1, chipset=i440fx
floppya: 1_44={floppy}, status=inserted
boot: floppy
com1: enabled=1, mode=file, dev={launch.console}
com2: enabled=1, mode=socket-client, dev=127.0.0.1:{port}
display_library: term
log: {launch.folder / "bochs.log"}
clock: sync=none, time0=1763800000
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
mouse: enabled=0
""")
        # With `info` or `error` logged Bochs 2.7 can deadlock: its timer's signal handler logs too.
        script = launch.folder / "debugger"
        script.write_text("c\n")
        return ["bochs-bin", "-q", "-rc", str(script), "-f", str(rc)]


# Making kernel text read-only is followed by a walk of all page tables: five seconds here.
APPEND = "rodata=off"

MACHINES = [
    Machine(
        "ept",
        "Intel EPT with accessed bits (Bochs, kvm_intel eptad=1)",
        Bochs(),
        cpu="corei7_haswell_4770",
        modules={"kvm-intel": "ept=1 eptad=1", "brd": "rd_nr=3 rd_size=524288"},
        check={"/sys/module/kvm_intel/parameters/ept": "Y", "/sys/module/kvm_intel/parameters/eptad": "Y"},
        limits=Limits(slow=10.0, most_mib=_MOST_MIB, busy=True),
        append=APPEND,
    ),
    Machine(
        "ept-noad",
        "Intel EPT without accessed bits (Bochs, kvm_intel eptad=0)",
        Bochs(),
        cpu="corei7_haswell_4770",
        modules={"kvm-intel": "ept=1 eptad=0", "brd": "rd_nr=3 rd_size=524288"},
        check={"/sys/module/kvm_intel/parameters/ept": "Y", "/sys/module/kvm_intel/parameters/eptad": "N"},
        limits=Limits(slow=10.0, most_mib=_MOST_MIB, busy=True),
        append=APPEND,
    ),
]
