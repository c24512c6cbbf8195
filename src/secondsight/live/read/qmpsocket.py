"""A QMP socket of QEMU, connected to in bounded time: drgn waits for ever for what does not answer, and no signal ends that.

QEMU serves one client of such a socket at a time; the kernel lets a second one connect, who then waits for the greeting that QEMU's
docs/interop/qmp-spec.rst promises ("Server Greeting") until the first one leaves.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import Final

#: seconds for the greeting and each answer of the handshake; seconds for any answer after it
HANDSHAKE_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 60.0


def greeted(path: Path, seconds: float = HANDSHAKE_TIMEOUT) -> socket.socket:
    """A connection to the Unix socket *path* whose greeting is there to be read; no single receive on it takes over *seconds*.

    :raises TimeoutError: nothing came in that time.
    :raises OSError: it cannot be connected to, or was closed at once.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(seconds)
        connection.connect(str(path))
        end = time.monotonic() + seconds
        # Looked at and left there: who speaks QMP on this connection begins by reading it.
        while not (begun := connection.recv(1 << 16, socket.MSG_PEEK)).endswith(b"\n"):
            if not begun:
                raise ConnectionResetError(0, "closed without a greeting")
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.01)
        connection.settimeout(None)
        receive_timeout(connection, seconds)
    except BaseException:
        connection.close()
        raise
    return connection


def receive_timeout(connection: socket.socket, seconds: float) -> None:
    """Let a receive on *connection* fail (EAGAIN) after *seconds*, in whatever process or library it is (SO_RCVTIMEO)."""
    whole = int(seconds)
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    )


__all__ = ["HANDSHAKE_TIMEOUT", "READ_TIMEOUT", "greeted", "receive_timeout"]
