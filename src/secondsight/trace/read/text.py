"""Bytes in: files and pipes, compressed or not, in blocks of whole lines, with where we are in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

import zstandard

from secondsight.errors import InputError

BLOCK: Final = 4 << 20
_AHEAD: Final = 4  # blocks decompressed before they are used: as many as come while a row group is written
BOM: Final = b"\xef\xbb\xbf"  # of UTF-8, which some editors begin a file with
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
LONGEST_LINE: Final = 1 << 20
Progress = Callable[[int, int | None], None]  # bytes read of the (compressed) input, and its size if known


class ByteStream:
    """The decompressed bytes of *path* (``-``: standard input); gzip, xz, zstd and zlib are told by their first bytes.

    ``offset`` is the number of decompressed bytes handed out, ``input_hash`` the sha256 of them.

    :raises InputError: a missing file, or a compressed stream that is torn.
    """

    def __init__(self, path: str, progress: Progress | None = None) -> None:
        self.name = "standard input" if path == "-" else str(path)
        self.offset = self._unpacked = 0
        self._digest = hashlib.sha256()
        self._progress = progress
        self.size: int | None = None
        self.path: Path | None = None  # where it is a file
        if path == "-":
            raw: io.BufferedReader = cast(io.BufferedReader, sys.stdin.buffer)
        else:
            where = self.path = Path(path)
            if not where.exists():
                raise InputError(self.name, "", "no such file")
            if where.is_dir():
                raise InputError(self.name, "", "is a directory")
            raw = where.open("rb")
            self.size = where.stat().st_size if where.is_file() else None
        self._raw = _Counted(raw)
        head = raw.peek(6)[:6]
        self._data: BinaryIO = self._decompressed(head)
        self.compressed = self._data is not cast(BinaryIO, self._raw)
        self._head = b""

    def _decompressed(self, head: bytes) -> BinaryIO:
        raw = cast(BinaryIO, self._raw)
        if head.startswith(b"\x1f\x8b"):
            return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
        if head.startswith(b"\xfd7zXZ\0"):
            # LZMAFile takes whatever follows a stream for nothing.
            return cast(
                BinaryIO, _Inflated(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), padding=b"\0")
            )
        if head.startswith(b"\x28\xb5\x2f\xfd"):
            return cast(BinaryIO, _Inflated(raw, lambda: zstandard.ZstdDecompressor().decompressobj()))
        if head[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"):
            return cast(BinaryIO, _Inflated(raw, zlib.decompressobj))
        return raw

    def peek(self, size: int = 4096) -> bytes:
        """Up to *size* first bytes, which a later :meth:`read` gives again; only before the first read."""
        while len(self._head) < size:
            more = self._read(size - len(self._head))
            if not more:
                break
            self._head += more
        return self._head[:size]

    def _read(self, size: int) -> bytes:
        try:
            data = self._data.read(size)
        except (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
            where = f"byte {self._unpacked} of the decompressed data"
            raise InputError(
                self.name, where, f"the compressed stream is damaged or torn ({error})"
            ) from None
        self._unpacked += len(data)
        return data

    def read(self, size: int = BLOCK) -> bytes:
        """Up to *size* bytes; empty at the end.

        :raises InputError: a compressed stream that is torn.
        """
        data = self._next(size)
        self._digest.update(data)
        self._handed_out(data)
        return data

    def _next(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size)

    def _handed_out(self, data: bytes) -> None:
        self.offset += len(data)
        if self._progress is not None:
            self._progress(self._raw.count, self.size)

    def ahead(self, size: int = BLOCK) -> Iterator[bytes]:
        """The bytes, *size* at a time; of a compressed stream threads decompress the next and digest the last."""
        if not self.compressed:
            while data := self.read(size):
                yield data
            return
        with (
            ThreadPoolExecutor(1, "trace-digest") as digesting,
            ThreadPoolExecutor(1, "trace-decompress") as decompressing,
        ):
            coming = deque(decompressing.submit(self._next, size) for _ in range(_AHEAD))
            try:
                while data := coming.popleft().result():
                    coming.append(decompressing.submit(self._next, size))
                    digesting.submit(self._digest.update, data)
                    self._handed_out(data)
                    yield data
            finally:
                for block in coming:
                    block.cancel()

    def text_head(self, size: int = 4096) -> bytes:
        """:meth:`peek`, without a byte order mark.

        :raises InputError: it is UTF-16's.
        """
        head = self.peek(size)
        if (
            head.startswith(_UTF16)
            and (b"\0" not in head[2:20:2] or b"\0" not in head[3:20:2])
            and b"\0" in head[2:20]
        ):
            raise InputError(self.name, "byte 0", "UTF-16 text; make it UTF-8 (iconv -f UTF-16 -t UTF-8)")
        return head.removeprefix(BOM)

    def blocks(self) -> Iterator[bytes]:
        """The bytes in blocks that end with a line's end; the last one may not, when the input is torn. A byte order mark is left out.

        :raises InputError: UTF-16, or a compressed stream that is torn.
        """
        rest = b""
        for number, block in enumerate(self.ahead()):
            data = block.removeprefix(BOM) if number == 0 else block
            cut = data.rfind(b"\n") + 1
            if cut == 0:
                rest += data
                if len(rest) > LONGEST_LINE:
                    raise InputError(
                        self.name, f"byte {self.offset - len(rest)}", "a line of over 1 MiB: no text trace"
                    )
                continue
            yield rest + data[:cut] if rest else data[:cut]
            rest = data[cut:]
        if rest:
            yield rest

    @property
    def input_hash(self) -> str:
        """The sha256 of what was read so far, in hex."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._data.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lines:
    """Lines of a :class:`ByteStream` with their number and byte, for readers that look at each in Python."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._number = 0
        self._at = 0
        self._next = 0

    def blocks(self) -> Iterator[bytes]:
        """Blocks of whole lines."""
        return self._stream.blocks()

    def split(self, block: bytes) -> Iterator[bytes]:
        """The lines of *block*, each ended by LF, which CR LF becomes (only the input's last may have no end)."""
        for line in block.splitlines(keepends=True) if b"\r" not in block else _split(block):
            self._number += 1
            self._at = self._next
            self._next += len(line)
            yield line[:-2] + b"\n" if line.endswith(b"\r\n") else line

    @property
    def where(self) -> str:
        """The line that was handed out last, by number and byte."""
        return f"line {self._number}, byte {self._at}"

    def error(self, line: bytes, expected: str) -> InputError:
        """An :class:`InputError` at the line that was handed out last."""
        torn = "" if line.endswith(b"\n") else "the last line is torn: "
        shown = line[:60].decode("ascii", "replace").rstrip("\n")
        return InputError(self._stream.name, self.where, f"{torn}{shown!r}; expected {expected}")


def _split(block: bytes) -> Iterator[bytes]:
    """Lines ended by ``\\n`` alone, where splitlines would also cut at ``\\r``."""
    start = 0
    while start < len(block):
        end = block.find(b"\n", start) + 1 or len(block)
        yield block[start:end]
        start = end


class _Inflated(io.RawIOBase):
    """A zlib, xz or zstd stream as a file that tells its tear (zstandard's own reader ends silently there).

    *padding*: bytes that may stand between streams and after the last (the .xz file format, 2.2: Stream Padding).
    """

    FEED = 1024  # bytes at once: the most that they can become, 128 KiB for each 4 of zstd's, is 32 MiB

    def __init__(self, raw: BinaryIO, begin: Callable[[], Any], padding: bytes = b"") -> None:
        self._raw, self._begin, self._inflate, self._padding = raw, begin, begin(), padding
        self._feed = self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts = [self._ready]
        length = len(self._ready)
        while length < max(size, 1):
            feed = self._feed or self._raw.read(self.FEED)
            if not feed:
                if not self._inflate.eof:
                    raise EOFError("it ends early")
                break
            if self._inflate.eof and self._padding and not (feed := feed.lstrip(self._padding)):
                self._feed = b""
                continue
            if self._inflate.eof:  # another frame follows
                self._inflate = self._begin()
            data = self._inflate.decompress(feed)
            self._feed = self._inflate.unused_data if self._inflate.eof else b""
            parts.append(data)
            length += len(data)
        whole = b"".join(parts)
        self._ready = whole[max(size, 1) :]
        return whole[: max(size, 1)]


class _Counted(io.RawIOBase):
    """A raw file that counts what went through it, for progress."""

    def __init__(self, inner: io.BufferedReader) -> None:
        self.inner, self.count = inner, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.inner.read(size)
        self.count += len(data)
        return data

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.inner.read(len(view))
        view[: len(data)] = data
        self.count += len(data)
        return len(data)

    def close(self) -> None:
        self.inner.close()
        super().close()
