import shutil
import struct
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from secondsight.errors import InputError, SecondSightError
from secondsight.lab import bochs, elf

SETUP = bytearray(1024)
SETUP[0x201] = 0x6A
SETUP[0x1F1:0x26C] = bytes(range(0x7B))
SETUP[0x201] = 0x6A


def kernel_elf(address: int = bochs.KERNEL, entry: int = bochs.KERNEL, machine: int = 62) -> bytes:
    head = elf.HEADER.pack(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 2, machine, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    table = elf.PROGRAM.pack(1, 5, 0x200, 0, address, 4, 4, 1) + elf.PROGRAM.pack(
        1, 6, 0x204, 0, address + 0x3000, 2, 0x5000, 1
    )
    return (head + table).ljust(0x200, b"\0") + b"codeda"


def test_the_kernel_lies_as_its_headers_say_zeroed_memory_included() -> None:
    memory, entry = bochs.flat(kernel_elf())
    assert entry == bochs.KERNEL and len(memory) == 0x8000
    assert memory[:4] == b"code" and memory[0x3000:0x3002] == b"da"
    assert memory.strip(b"\0").replace(b"\0", b"") == b"codeda"


@pytest.mark.parametrize(
    "wrong",
    [b"", b"MZ" + bytes(100), kernel_elf(machine=183), kernel_elf(address=0x100000), kernel_elf(address=bochs.SCRATCH),
     kernel_elf(entry=0x10), kernel_elf()[:0x202]],
)  # fmt: skip
def test_no_kernel_is_refused_with_its_name(wrong: bytes) -> None:
    with pytest.raises(InputError) as caught:
        bochs.flat(wrong, "vmlinux")
    assert caught.value.source == "vmlinux"


def test_the_boot_page_follows_the_boot_protocol() -> None:
    page = bochs.boot_page(bytes(SETUP), "quiet x=1", 3 * bochs.BLOCK + 1, 7, 0x1000040)
    assert page[0x1F1:0x210] == SETUP[0x1F1:0x210]
    assert page[0x210] == 0xFF and page[0x211] & 1
    assert struct.unpack_from("<II", page, 0x218) == (bochs.INITRD, 7)
    line = struct.unpack_from("<I", page, 0x228)[0] - bochs.PARAMS
    assert page[line:].split(b"\0")[0] == b"quiet x=1"
    entry, mark, kernel, initrd = struct.unpack_from("<QQII", page, 0x8028)
    assert (entry, mark, kernel, initrd) == (0x1000040, bochs.PAD_MARK + bochs.PADS, 4, 1)


def test_the_page_tables_map_four_gibibytes_onto_themselves() -> None:
    page = bochs.boot_page(bytes(SETUP), "", 1, 1, 0)

    def entry(table: int, index: int) -> int:
        return int(struct.unpack_from("<Q", page, table - bochs.PARAMS + 8 * index)[0])

    for address in (0, 0x7C00, bochs.KERNEL, bochs.INITRD, 0xFFE00000):
        directory_pointers = entry(bochs.PARAMS + 0x2000, address >> 39)
        directory = entry(directory_pointers & ~0xFFF, address >> 30)
        leaf = entry(directory & ~0xFFF, address >> 21 & 511)
        assert directory_pointers & directory & leaf & 3 == 3 and leaf & 0x80
        assert leaf & ~0x1FFFFF == address & ~0x1FFFFF


def test_a_command_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(SecondSightError, match="command line"):
        bochs.boot_page(bytes(SETUP), "x" * 3000, 1, 1, 0)


def test_the_image_holds_block_by_block_what_the_first_sector_expects() -> None:
    page = bochs.boot_page(bytes(SETUP), "", 1, 1, 0)
    whole = bytes(bochs.PARAMS % bochs.BLOCK) + bochs.image(page, b"kernel")
    assert len(whole) == (1 + bochs.PADS + 1) * bochs.BLOCK
    assert whole[bochs.PARAMS % bochs.BLOCK :][: len(page)] == page
    marks = [struct.unpack_from("<Q", whole, i * bochs.BLOCK)[0] for i in range(1, bochs.PADS + 1)]
    assert marks == [bochs.PAD_MARK + i for i in range(1, bochs.PADS + 1)]
    assert whole[(1 + bochs.PADS) * bochs.BLOCK :].rstrip(b"\0") == b"kernel"
    # The pads used up by the first sector lie between the kernel and the initramfs.
    assert bochs.SCRATCH + bochs.PADS * bochs.BLOCK <= bochs.INITRD


def test_the_floppy_is_bootable() -> None:
    floppy = bochs.boot_sector()
    assert len(floppy) == 1474560 and floppy[510:512] == b"\x55\xaa"


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="needs binutils")
def test_the_first_sector_is_its_source_assembled(tmp_path: Path) -> None:
    source = tmp_path / "boot.S"
    source.write_text(resources.files("secondsight.lab").joinpath("boot_sector.S").read_text())
    subprocess.run(["as", "--64", "-o", tmp_path / "o", source], check=True)
    subprocess.run(
        ["ld", "-Ttext", "0", "--oformat", "binary", "-o", tmp_path / "b", tmp_path / "o"], check=True
    )
    assert (tmp_path / "b").read_bytes() == bochs.boot_sector()[:512]
