"""The initramfs container: ``newc`` cpio, written and read without the cpio program and without root.

One record (Documentation/driver-api/early-userspace/buffer-format.rst):

    070701 ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize check    6 + 13 x 8 hex digits
    name NUL, padded so that header + name is a multiple of 4;   data, padded to a multiple of 4

An archive ends with a record called ``TRAILER!!!``; the kernel unpacks archives laid end to end, later files
replacing earlier ones, which is how the agent's files are laid over a base that is built once.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from secondsight.errors import InputError

__all__ = ["ArchiveMember", "Writer", "read"]

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


class ArchiveMember(NamedTuple):
    """A file: *name* without a leading slash, *mode* with type bits, *data* (a link's: its target)."""

    name: str
    mode: int
    data: bytes
    rdev: tuple[int, int] = (0, 0)


class Writer:
    """Writes an archive to *out*; parent folders are made as they are needed, each once."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._ino, self._folders = out, 1, set[str]()

    def folder(self, path: str) -> None:
        """Make folder *path* and those above it."""
        path = path.strip("/")
        if path and path not in self._folders:
            self.folder(path.rpartition("/")[0])
            self._folders.add(path)
            self._record(ArchiveMember(path, stat.S_IFDIR | 0o755, b""))

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Make file *path* with *data*."""
        self._inside(ArchiveMember(path.strip("/"), stat.S_IFREG | mode, data))

    def link(self, path: str, target: str) -> None:
        """Make *path* a symbolic link to *target*."""
        self._inside(ArchiveMember(path.strip("/"), stat.S_IFLNK | 0o777, target.encode()))

    def device(self, path: str, major: int, minor: int) -> None:
        """Make character device *path*."""
        self._inside(ArchiveMember(path.strip("/"), stat.S_IFCHR | 0o600, b"", (major, minor)))

    def close(self) -> None:
        """Write the trailer; *out* stays open."""
        self._record(ArchiveMember(TRAILER, 0, b""))

    def _inside(self, entry: ArchiveMember) -> None:
        self.folder(entry.name.rpartition("/")[0])
        self._record(entry)

    def _record(self, entry: ArchiveMember) -> None:
        name = entry.name.encode() + b"\0"
        fields = (self._ino, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.rdev, len(name), 0)
        head = MAGIC + b"".join(b"%08X" % value for value in fields) + name
        self._ino += 1
        self._out.write(head + bytes(-len(head) % 4))
        self._out.write(entry.data)
        self._out.write(bytes(-len(entry.data) % 4))


def read(data: bytes, source: str = "cpio") -> Iterator[ArchiveMember]:
    """The entries of archives laid end to end, no trailers.

    :raises InputError: what is no archive; it names *source* and the byte.
    """
    at = 0
    while at < len(data):
        if data[at] == 0:  # padding between archives
            at += 1
            continue
        head = data[at : at + 110]
        try:
            if len(head) < 110 or head[:6] != MAGIC:
                raise ValueError
            fields = [int(head[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        except ValueError:
            raise InputError(source, f"byte {at}", "not a newc record") from None
        mode, size, rdev, length = fields[1], fields[6], (fields[9], fields[10]), fields[11]
        start = at + 110 + length
        start += -start % 4
        name = data[at + 110 : at + 109 + length]
        if length < 1 or start + size > len(data):
            raise InputError(source, f"byte {at}", "the record is cut short")
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise InputError(source, f"byte {at}", "the record's name is not UTF-8") from None
        if text != TRAILER:
            yield ArchiveMember(text, mode, data[start : start + size], rdev)
        at = start + size + -(start + size) % 4
