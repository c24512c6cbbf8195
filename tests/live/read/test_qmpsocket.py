"""A QMP socket that says nothing, or half of it, holds nobody up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from secondsight.errors import MissingDependency
from secondsight.live.read.qmpsocket import greeted, receive_timeout

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}, "package": ""}, "capabilities": []}}\r\n'


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "q.sock"))
        listening.listen(1)
        yield listening, tmp_path / "q.sock"


def test_the_greeting_is_left_for_who_speaks(listener) -> None:
    listening, path = listener
    thread = threading.Thread(target=lambda: listening.accept()[0].sendall(GREETING))
    thread.start()
    with greeted(path) as connection:
        assert connection.recv(4096) == GREETING
    thread.join()


def test_silence_and_half_a_greeting_end_in_time(listener) -> None:
    listening, path = listener
    with pytest.raises(TimeoutError):
        greeted(path, 0.2)
    listening.accept()[0].close()
    kept: list[socket.socket] = []

    def half() -> None:
        kept.append(listening.accept()[0])
        kept[0].sendall(GREETING[:20])

    thread = threading.Thread(target=half)
    thread.start()
    with pytest.raises(TimeoutError):
        greeted(path, 0.2)
    thread.join()
    kept[0].close()


def test_who_hangs_up_is_told_from_who_is_silent(listener) -> None:
    listening, path = listener
    thread = threading.Thread(target=lambda: listening.accept()[0].close())
    thread.start()
    with pytest.raises(ConnectionError):
        greeted(path, 5)
    thread.join()


def test_a_receive_ends_by_itself() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        receive_timeout(ours, 0.1)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


def test_one_that_greets_and_then_is_silent_is_told(listener, monkeypatch) -> None:
    kmem = pytest.importorskip("secondsight.live.read.kmem")
    monkeypatch.setattr(kmem, "greeted", lambda path: greeted(path, 0.2))
    listening, path = listener
    kept: list[socket.socket] = []

    def greet() -> None:
        kept.append(listening.accept()[0])
        kept[0].sendall(GREETING)

    thread = threading.Thread(target=greet)
    thread.start()
    with pytest.raises(MissingDependency, match=r"q\.sock: does not answer \(QEMU serves one QMP client"):
        kmem.KernelMemory.qmp(path)
    thread.join()
    kept[0].close()


def test_a_silent_socket_can_be_left_at_once(listener) -> None:
    pytest.importorskip("drgn")
    listening, path = listener
    script = "from secondsight.cli import main; main()"
    asked = subprocess.Popen(
        [sys.executable, "-c", script, "explain", "--pid", str(os.getpid()), "--qmp", str(path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    with listening.accept()[0]:
        asked.send_signal(signal.SIGTERM)
        began = time.monotonic()
        message = asked.communicate(timeout=60)[1]
    assert (asked.returncode, message) == (143, "secondsight: terminated\n")
    assert time.monotonic() - began < 4
