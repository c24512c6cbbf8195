"""Thrift's compact protocol, as much of it as Parquet's page headers and footer need.

::

    struct   field ... 0                   field    delta << 4 | type [number, where delta is 0]  value
    list     size << 4 | type [size, where that is 15]  values        binary   length  bytes
    integer  varint, zigzag                bool     in the type of a field; a byte of its own in a list
"""

from __future__ import annotations

from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_DEEPEST = 12


class Reader:
    """Reads values of *data* from its byte ``at`` on.

    :raises IndexError, ValueError: what does not add up.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def varint(self) -> int:
        """An unsigned integer of at most 64 bits."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a varint of over 64 bits")

    def integer(self) -> int:
        """A signed integer."""
        byte = self.data[self.at]
        if byte < 0x80:  # most are small, and footers have thousands
            self.at += 1
            return byte >> 1 ^ -(byte & 1)
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Field number → integer, bytes, list or nested struct."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        data = self.data
        while True:
            head = data[self.at]
            self.at += 1
            kind = head & 0x0F
            if kind == _STOP:
                return fields
            number = number + (head >> 4) if head >> 4 else self.integer()
            if kind in _INTEGERS:
                fields[number] = self.integer()
            else:
                fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self.integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _BINARY:
            return self._bytes(self.varint())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._bytes(1)[0]
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError(f"no type {kind} in Parquet's structs")

    def _bytes(self, length: int) -> bytes:
        piece = self.data[self.at : self.at + length]
        if len(piece) != length:
            raise ValueError("bytes beyond the end")
        self.at += length
        return piece

    def _list(self, depth: int) -> list[Any]:
        head = self.data[self.at]
        self.at += 1
        size = head >> 4 if head >> 4 < 15 else self.varint()
        if size > len(self.data) - self.at:
            raise ValueError("a list beyond the end")
        return [self._value(head & 0x0F, depth + 1) for _ in range(size)]
