import bz2
import gzip
import lzma
import struct
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError
from secondsight.lab import bzimage

ELF = b"\x7fELF\x02\x01" + bytes(range(256)) * 40
PACKERS = {
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "none": lambda data: data,
}


def bz_image(payload: bytes, setup_sects: int = 3, offset: int = 64) -> bytes:
    head = bytearray((setup_sects + 1) * 512)
    head[0x1F1] = setup_sects
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, offset, len(payload))
    return bytes(head) + bytes(offset) + payload + bytes(37)


@pytest.mark.parametrize("packer", PACKERS)
def test_the_kernel_inside_comes_out(packer: str) -> None:
    # The build appends the unpacked size to what the compressor wrote.
    payload = PACKERS[packer](ELF) + (b"" if packer in ("gzip", "none") else struct.pack("<I", len(ELF)))
    assert bzimage.vmlinux(bz_image(payload)) == ELF


def test_an_elf_is_taken_as_it_is() -> None:
    assert bzimage.vmlinux(ELF) == ELF


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (b"", "HdrS"),
        (b"MZ" + bytes(4096), "HdrS"),
        (bz_image(lzma.compress(ELF))[:2200], "cut short"),
        *(
            (bz_image(pack(ELF)[:-40]), "unpack")
            for name, pack in PACKERS.items()
            if name not in ("lzma", "none")
        ),
        (bz_image(b"\xfd7zXZ\0" + bytes(200)), "unpack"),
        (bz_image(b"\x02\x21LZ4 kernel" + bytes(100)), "not known here (0221"),
    ],
)
def test_what_is_wrong_is_said(image: bytes, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        bzimage.vmlinux(image, "boot/vmlinuz")
    assert caught.value.source == "boot/vmlinuz" and problem in str(caught.value)


@given(st.binary(max_size=64), st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_damage_is_refused_not_raised(payload: bytes, sects: int, offset: int, length: int) -> None:
    image = bytearray(bz_image(payload))
    image[0x1F1] = sects
    struct.pack_into("<II", image, 0x248, offset, length)
    with pytest.raises(InputError):
        bzimage.vmlinux(bytes(image))


def test_unpacking_is_done_once(tmp_path: Path) -> None:
    source = tmp_path / "vmlinuz"
    source.write_bytes(bz_image(lzma.compress(ELF) + b"size"))
    path = bzimage.unpack(source, tmp_path / "cache")
    stamp = path.stat().st_mtime_ns
    assert path.read_bytes() == ELF
    assert bzimage.unpack(source, tmp_path / "cache") == path and path.stat().st_mtime_ns == stamp
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [path.name]


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(sorted(PACKERS)))
def test_an_image_torn_anywhere_is_one_line(where: float, packer: str) -> None:
    image = bz_image(PACKERS[packer](ELF) + b"size")
    whole = len(image) - 37  # what follows the kernel inside
    with pytest.raises(InputError) as caught:
        bzimage.vmlinux(image[: int(whole * where)], "vmlinuz")
    assert "\n" not in str(caught.value)
