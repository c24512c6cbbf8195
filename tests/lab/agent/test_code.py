"""The bytes are what their listings say, and lie apart from each other."""

from __future__ import annotations

import itertools
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from secondsight.lab.agent import code, vmcb

native = pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine code is x86-64")


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
