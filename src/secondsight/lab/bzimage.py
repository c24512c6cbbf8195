"""Unpack a bzImage: with the ELF inside, an emulator need not run the decompressor, most of a slow boot.

0x1f1 setup_sects      sectors of real-mode code after the boot sector (0 means 4)
0x202 "HdrS"
0x248 payload_offset   where the compressed kernel is, from the start of the protected-mode part
0x24c payload_length   its bytes; the last four are the unpacked size for every compressor but gzip

(Documentation/arch/x86/boot.rst)
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

from secondsight import atomicfile
from secondsight.errors import InputError

__all__ = ["unpack", "vmlinux"]


def vmlinux(image: bytes, source: str = "vmlinuz") -> bytes:
    """The ELF kernel inside bzImage *image*.

    :raises InputError: there is none; it names *source*.
    """
    if image[:4] == b"\x7fELF":
        return image
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        raise InputError(source, "byte 514", "not an x86 bzImage (no HdrS)")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    if len(payload) < length or length < 8:
        raise InputError(source, f"byte {start}", "the image is cut short")
    try:
        elf = _decompress(payload)
    except (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError, _zstd_error()) as error:
        raise InputError(source, f"byte {start}", f"the kernel inside does not unpack: {error}") from None
    if elf[:4] != b"\x7fELF":
        raise InputError(
            source,
            f"byte {start}",
            f"the kernel inside is packed in a way not known here ({payload[:6].hex()})",
        )
    return elf


def unpack(vmlinuz: Path, folder: Path) -> Path:
    """``vmlinux`` of the file *vmlinuz*, kept in *folder* under a name made from the file's content."""
    image = vmlinuz.read_bytes()
    path = folder / f"vmlinux-{hashlib.sha256(image).hexdigest()[:16]}"
    if not path.exists():
        elf = vmlinux(image, str(vmlinuz))
        folder.mkdir(parents=True, exist_ok=True)
        with atomicfile.open_atomic(path) as part:
            part.write_bytes(elf)
    return path


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


def _decompress(payload: bytes) -> bytes:
    """*payload* unpacked by what its first bytes say; the size that the kernel's build appends is passed over."""
    unpacker: Any
    if payload[:6] == b"\xfd7zXZ\0":
        unpacker = lzma.LZMADecompressor()
    elif payload[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        unpacker = zstandard.ZstdDecompressor().decompressobj()
    elif payload[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=31)
    elif payload[:3] == b"BZh":
        unpacker = bz2.BZ2Decompressor()
    elif payload[:1] == b"\x5d":
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    else:
        return payload
    data: bytes = unpacker.decompress(payload)
    if not unpacker.eof:
        raise EOFError("it ends too early")
    return data
