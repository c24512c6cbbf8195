"""What is taken for a process and what is not, and how refusals are told."""

import errno
import os
import subprocess
import threading

import pytest

from secondsight.errors import UsageError
from secondsight.live.read.process import Process, explain_oserror


def test_a_dead_number_and_a_thread_are_refused():
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(UsageError, match="no such process"):
        Process.open(child.pid)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(UsageError, match=f"thread of process {os.getpid()}"):
            Process.open(thread.native_id)
    finally:
        stop.set()
        thread.join()


def refusal_of(monkeypatch, tmp_path, status, flags):
    """What is said of process 4242 with these lines of status and these flags in stat."""
    (tmp_path / "status").write_text("".join(f"{line}\n" for line in ("Name:\tx", "Tgid:\t4242", *status)))
    (tmp_path / "stat").write_text(f"4242 (a) b) S 1 1 1 0 -1 {flags} " + " ".join(["0"] * 40))
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *how, **at: real(tmp_path if path == "/proc/4242" else path, *how, **at)
    )
    with pytest.raises(UsageError) as raised:
        Process.open(4242)
    return str(raised.value)


def test_without_memory_a_kernel_thread_is_told_from_what_exits(monkeypatch, tmp_path):
    # PF_KTHREAD and PF_EXITING (include/linux/sched.h)
    assert "kernel thread" in refusal_of(monkeypatch, tmp_path, [], 0x00200000 | 0x40)
    assert "is exiting" in refusal_of(monkeypatch, tmp_path, [], 0x00000004 | 0x40)
    assert "zombie" in refusal_of(monkeypatch, tmp_path, ["State:\tZ (zombie)"], 0x4)


def test_a_refusal_in_spite_of_the_capabilities_does_not_advise_them(monkeypatch):
    denied = PermissionError(errno.EACCES, "denied")
    monkeypatch.setattr("secondsight.live.read.process.own_capabilities", lambda: {"CAP_SYS_PTRACE"})
    assert "run as root" in str(explain_oserror(denied, "x"))
    every = {"CAP_SYS_PTRACE", "CAP_SYS_ADMIN"}
    monkeypatch.setattr("secondsight.live.read.process.own_capabilities", lambda: every)
    assert "security module" in str(explain_oserror(denied, "x"))
