"""What an interrupt does: once, however often it comes, and with one exit code; what was ignored at the start stays so."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from secondsight import signals
from secondsight.signals import ENDING, Interrupts, Terminated, heeded, interrupt_of


@pytest.fixture
def interrupts():
    """Listening, as a command does."""
    before = [signal.getsignal(number) for number in ENDING]
    listening = Interrupts()
    listening.begin()
    try:
        yield listening
    finally:
        listening.end()
        assert [signal.getsignal(number) for number in ENDING] == before


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    return now


def sent(number):
    """What is raised here by *number*."""
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt as raised:
        return raised
    return None


@pytest.mark.parametrize("number", ENDING)
def test_the_first_is_raised_and_the_same_once_more_is_not(interrupts, clock, number):
    raised = sent(number)
    assert isinstance(raised, Terminated) == (number != signal.SIGINT)
    assert getattr(raised, "number", signal.SIGINT) == number == interrupts.number
    clock[0] += signals.SAME_SIGNAL
    assert [sent(each) for each in ENDING] == [None, None, None]


def test_a_later_ctrl_c_is_raised_again_and_a_hangup_never(interrupts, clock):
    assert sent(signal.SIGHUP) is not None
    clock[0] += signals.SAME_SIGNAL + 0.1
    assert sent(signal.SIGHUP) is None
    assert type(sent(signal.SIGINT)) is KeyboardInterrupt


@pytest.mark.parametrize("number", ENDING)
def test_what_was_ignored_at_the_start_stays_so_but_for_sigterm(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert heeded(number) == (number == signal.SIGTERM)
        listening = Interrupts()
        listening.begin()
        assert (sent(number) is None) == (number != signal.SIGTERM)
        listening.end()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", ENDING)
def test_what_a_signal_raises_is_an_interrupt_that_knows_it(number):
    raised = interrupt_of(number)
    assert isinstance(raised, KeyboardInterrupt) and getattr(raised, "number", signal.SIGINT) == number


def test_what_is_lost_and_no_interrupt_is_left_to_python(interrupts, monkeypatch):
    told = []
    monkeypatch.setattr("sys.__unraisablehook__", told.append)
    lost = SimpleNamespace(exc_value=ValueError("dropped"))
    interrupts.once_more(lost)
    assert told == [lost]


def test_an_interrupt_that_a_callback_of_llvm_dropped_comes_again() -> None:
    script = """
import ctypes, os, signal, sys, time
from secondsight import cli
from secondsight.cli import group

@ctypes.CFUNCTYPE(None)
def callback():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

def work(self, context):
    callback()
    time.sleep(30)

group.LazyGroup.invoke = work
cli.main(["rules"])
"""
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 130
    assert finished.stderr == "secondsight: interrupted\n"


_CONTROLLING = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
_SLOW_TIDYING = """
import sys, time
from secondsight import cli
from secondsight.cli import group

def work(self, context):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("tidying", flush=True)
        end = time.monotonic() + float(sys.argv[1])
        while time.monotonic() < end:
            time.sleep(0.01)
        print("tidied", flush=True)

group.LazyGroup.invoke = work
cli.main(["rules"])
"""


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGHUP, 129, "terminated"),
    ],
)
def test_a_signal_that_comes_twice_at_once_undoes_nothing_of_what_the_first_began(number, code, word) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_TIDYING, "0.3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    for _ in range(20):
        process.send_signal(number)
        time.sleep(0.002)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("tidying\ntidied\n", f"secondsight: {word}\n")
    assert process.returncode == code


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored() -> None:
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", _SLOW_TIDYING, "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.terminate()
    assert process.communicate(timeout=60)[0] == "tidying\ntidied\n" and process.returncode == 143


def test_what_is_said_to_a_terminal_that_hung_up_is_no_error() -> None:
    """A dropped connection: the terminal's other end closes, which sends SIGHUP to who leads its session, and takes no more lines."""
    script = _SLOW_TIDYING.replace(
        'print("tidying", flush=True)', 'print("tidying", flush=True, file=sys.stderr)'
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _CONTROLLING + script, "0"], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
        text=True, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    os.close(ours)
    assert (process.communicate(timeout=60)[0], process.returncode) == ("tidied\n", 129)


def test_a_later_sigterm_ends_what_does_not_come_to_an_end() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_TIDYING, "50"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.terminate()
    assert process.stdout.readline() == "tidying\n"
    time.sleep(1.2)
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (143, "", "secondsight: terminated at once\n")
