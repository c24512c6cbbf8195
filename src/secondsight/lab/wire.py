"""The line between the host and the agent in the guest: one JSON value a line, over a serial port.

    {"block": 3, ...}\\n                      a short value, as it is
    z BASE64( zlib( {"block": 3, ...} ) )\\n   a long one: the port carries 400 kB/s

Both sides use this module (it imports the standard library only, so that it costs the guest little): the host
on a socket, the guest on ``/dev/lab``, which ``/init`` links to the machine's port.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import Any

__all__ = ["Port", "decode", "encode"]

PACKED_FROM = 512  # bytes of JSON from which packing pays


def encode(value: object) -> bytes:
    """*value*, anything that ``json`` takes, as one line with its newline."""
    text = json.dumps(value, separators=(",", ":")).encode()
    if len(text) >= PACKED_FROM:
        text = b"z" + base64.b64encode(zlib.compress(text, 1))
    return text + b"\n"


def decode(line: bytes) -> Any:
    """The value of a line that ``encode`` made.

    :raises ValueError: anything else.
    """
    if line[:1] == b"z":
        try:
            line = zlib.decompress(base64.b64decode(line[1:].strip(), validate=True))
        except zlib.error as error:
            raise ValueError(str(error)) from None
    return json.loads(line)


class Port:
    """The guest's end: ``send`` a value to the host, ``receive`` one from it."""

    def __init__(self, path: str = "/dev/lab") -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        self._rest = b""

    def send(self, value: object) -> None:
        """Send *value*; returns when the driver has taken all of it."""
        line = encode(value)
        while line:
            line = line[os.write(self._fd, line) :]

    def receive(self) -> Any:
        """The next value from the host; waits for it.

        :raises EOFError: the host has hung up.
        """
        while b"\n" not in self._rest:
            more = os.read(self._fd, 65536)
            if not more:
                raise EOFError("the host has hung up")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return decode(line)
