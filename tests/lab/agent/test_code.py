"""The bytes do what their listings say: they are run here, on memory of the test's own."""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secondsight.lab.agent import code, libc, vmcb
from secondsight.lab.agent.routines import Routines

native = pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine code is x86-64")


CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bodies", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.exit(0 if getattr(module, sys.argv[2])() else 3)
"""


def _in_child(body: Callable[[], bool]) -> int:
    """Run *body* in a Python of its own (it may take over SIGSEGV, or crash); the child's exit code, or less a signal's number."""
    return subprocess.run([sys.executable, "-c", CHILD, __file__, body.__name__]).returncode


def _the_loops_touch_the_pages_named_and_no_others() -> bool:
    memory = mmap.mmap(-1, 8 * 4096)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    routines = Routines()
    assert routines.touch(code.WRITE, [3, 1], 1 << 31, base) is None
    assert routines.touch(code.READ, [0, 1, 2], 0, base) is None
    assert routines.touch(code.FILL, [5], 0x0102030405060708, base) is None
    words = np.frombuffer(memory, np.uint32)
    heads = words[::1024].tolist()
    whole = np.frombuffer(memory, np.uint64)[5 * 512 : 6 * 512]
    return (
        heads == [0, 1 << 31 | 1, 0, 1 << 31 | 3, 0, 0x05060708, 0, 0] and (whole == 0x0102030405060708).all()
    )


@native
def test_the_loops_touch_the_pages_named_and_no_others() -> None:
    assert _in_child(_the_loops_touch_the_pages_named_and_no_others) == 0


def _a_denied_access_is_stepped_over_and_counted() -> bool:
    memory = mmap.mmap(-1, 4 * 4096)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    routines = Routines()
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + 4096), 4096, 0)
    answers = [routines.touch(r, [0, 1, 2], 5, base) for r in (code.READ, code.WRITE, code.FILL)]
    after = ctypes.c_uint64.from_address(base + 2 * 4096).value
    return answers == ["EFAULT"] * 3 and after == 5


@native
def test_a_denied_access_is_stepped_over_and_counted() -> None:
    assert _in_child(_a_denied_access_is_stepped_over_and_counted) == 0


def _a_fault_of_anyone_else_still_kills() -> bool:
    keep = Routines()
    ctypes.c_char.from_address(16).value  # noqa: B018
    return keep is None


@native
def test_a_fault_of_anyone_else_still_kills() -> None:
    assert _in_child(_a_fault_of_anyone_else_still_kills) == -signal.SIGILL


def test_the_routines_do_not_overlap() -> None:
    assert len(code.HOST) <= 4096
    starts = [code.READ, code.WRITE, code.FILL, code.HANDLER, code.DENIED, code.DRAIN, code.SYSCALL, code.RUN]
    assert starts == sorted(starts) and all(b - a == 64 for a, b in itertools.pairwise(starts))
    ends = {a: code.HOST[a:b].rstrip(b"\0")[-1:] for a, b in itertools.pairwise([*starts, code.PAUSE])}
    assert ends.pop(code.DENIED) == b""
    assert ends.pop(code.HANDLER) == b"\x0b"
    assert code.HOST[code.PAUSE :].endswith(b"\xeb\xf7"), "it never returns"
    assert set(ends.values()) == {b"\xc3"}


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump reads the guest's programs")
@pytest.mark.parametrize(
    ("program", "mode", "next_"),
    [(code.GUEST32, "i386", code.NEXT32), (code.GUEST64, "i386:x86-64", code.NEXT64)],
)
def test_the_guest_program_disassembles_as_listed(
    program: bytes, mode: str, next_: int, tmp_path: Path
) -> None:
    file = tmp_path / "code"
    file.write_bytes(program)
    text = subprocess.run(
        ["objdump", "-D", "-b", "binary", "-m", mode, "-M", "intel", str(file)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line.split("\t") for line in text.splitlines() if "\t" in line]
    code_at = {int(parts[0].strip().rstrip(":"), 16): parts[2].strip() for parts in lines if len(parts) > 2}
    assert "(bad)" not in text
    assert f"0x{code.MAILBOX:x}" in code_at[0]
    assert code_at[next_].startswith("add") and code_at[next_].endswith(",0x10")
    assert [c for c in code_at.values() if c == "hlt"]
    assert code_at[max(code_at)].split() == ["jmp", "0x0"]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump reads the guest's programs")
def test_the_vm_that_has_a_guest_runs_it_from_its_start_until_it_halts(tmp_path: Path) -> None:
    file = tmp_path / "code"
    file.write_bytes(code.NESTING)
    text = subprocess.run(
        ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", str(file)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = [line.split("\t") for line in text.splitlines() if "\t" in line]
    said = [" ".join(parts[2].split("#")[0].split()) for parts in lines if len(parts) > 2]
    assert said == [
        f"mov eax,0x{code.VMCB:x}",
        f"mov DWORD PTR [rax+0x{vmcb.RIP:x}],0x{code.PRIVATE:x}",
        "vmrun",
        f"cmp DWORD PTR [rax+0x{vmcb.EXIT_CODE:x}],0x78",
        "jne 0x1b",
        "hlt",
        "jmp 0x0",
        "ud2",
    ]


def _a_system_call_keeps_its_arguments_through_the_drain() -> bool:
    routines = Routines()
    out, into = os.pipe()
    data = ctypes.create_string_buffer(b"abc")
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(data), 3)
    sent = routines.syscall(libc.SYS_WRITEV, into, ctypes.addressof(vector), 1)
    return (
        sent == 3
        and os.read(out, 9) == b"abc"
        and routines.failed(libc.SYS_WRITEV, 999, 0, 0) == "EBADF"
        and routines.failed(libc.SYS_MADVISE, 0, 0, 0) is None
    )


@native
def test_a_system_call_keeps_its_arguments_through_the_drain() -> None:
    assert _in_child(_a_system_call_keeps_its_arguments_through_the_drain) == 0


def _run_says_what_ails_a_vcpu() -> bool:
    routines = Routines()
    with Path(os.devnull).open() as wrong, mmap.mmap(-1, 4096) as state:
        try:
            routines.run(wrong.fileno(), state, 0)
        except libc.SysError as error:
            return error.errno == errno.ENOTTY
    return False


@native
def test_run_says_what_ails_a_vcpu() -> None:
    assert _in_child(_run_says_what_ails_a_vcpu) == 0
