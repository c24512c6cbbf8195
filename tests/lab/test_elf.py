import ctypes
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.lab import elf

BINARIES = [path for name in ("ls", "cat", "env") if (path := shutil.which(name))]


@pytest.mark.skipif(
    not sysconfig.get_platform().endswith("x86_64"), reason="reads this machine's own binaries"
)
@pytest.mark.parametrize("path", BINARIES)
def test_a_compacted_program_still_runs(path: str, tmp_path: Path) -> None:
    before = Path(path).read_bytes()
    after = elf.compact(before)
    program = tmp_path / Path(path).name
    program.write_bytes(after)
    program.chmod(0o755)
    run = subprocess.run([program, "--version"], capture_output=True)
    assert run.stdout == subprocess.run([path, "--version"], capture_output=True).stdout
    assert run.returncode == 0 and len(after) <= len(before)
    assert elf.compact(after) == after
    assert elf.needed(after) == elf.needed(before) != []


def test_padding_between_segments_goes_and_what_is_loaded_stays() -> None:
    first, second = b"A" * 0x700, b"B" * 0x300
    programs = [
        [1, 5, 0, 0, 0, 0x1000, 0x1000, 0x200000],
        [1, 6, 0x200800, 0x400800, 0, 0x300, 0x900, 0x200000],
    ]
    head = elf.HEADER.pack(b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    table = b"".join(elf.PROGRAM.pack(*p) for p in programs)
    data = (head + table + first).ljust(0x200800, b"\0") + second + b"debug" * 1000
    small = elf.compact(data)
    assert len(small) < 0x3000
    for i, (start, content) in enumerate([(len(head + table), first), (0, second)]):
        _, _, offset, vaddr, _, filesz, memsz, _ = elf.PROGRAM.unpack_from(small, 64 + 56 * i)
        assert offset % 4096 == vaddr % 4096
        assert (vaddr, filesz, memsz) == (programs[i][3], programs[i][5], programs[i][6])
        assert small[offset + start : offset + start + len(content)] == content


@given(st.binary(max_size=200))
def test_what_is_no_elf_is_left_alone(noise: bytes) -> None:
    assert elf.compact(noise) == noise
    assert elf.needed(noise) == []
    assert elf.symbols(noise) == (set(), set())


@pytest.mark.skipif(not sysconfig.get_platform().endswith("x86_64"), reason="loads an x86-64 library")
@given(st.sets(st.from_regex(r"f[a-z0-9_]{0,20}", fullmatch=True), max_size=12))
def test_a_stub_defines_its_functions_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    path = tmp_path_factory.mktemp("stub") / "libss_stub.so"
    path.write_bytes(elf.stub("libss_stub.so", names))
    library = ctypes.CDLL(str(path))
    assert all(hasattr(library, name) for name in names)
    assert not hasattr(library, "ss_not_there_")


LOADER = """
import ctypes, re, sys
from pathlib import Path
ctypes.CDLL(sys.argv[1])
print(re.search(r"^\\S+ (\\S+) .*\\[stack\\]$", Path("/proc/self/maps").read_text(), re.M)[1])
"""


@pytest.mark.skipif(not sysconfig.get_platform().endswith("x86_64"), reason="loads an x86-64 library")
def test_a_stub_asks_for_no_executable_stack(tmp_path: Path) -> None:
    # glibc before 2.41 made the stack executable for a library that does not say otherwise; since then it refuses the library.
    path = tmp_path / "libss_stub.so"
    path.write_bytes(elf.stub("libss_stub.so", {"f"}))
    finished = subprocess.run([sys.executable, "-c", LOADER, str(path)], capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == ("rw-p\n", "")
