"""What tests of the commands share."""

import subprocess
import sys
from pathlib import Path

import pytest

_TARGET = """
import mmap, sys
memory = mmap.mmap(-1, 10 << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(memory), 4096):
    memory[at] = 1
several = [mmap.mmap(-1, 3 << 21, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) for _ in range(5)]
for each in several:
    each[: 3 << 21] = bytes(3 << 21)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def target():
    """A process of our own: 10 blocks that are marked MADV_NOHUGEPAGE, and five mappings of shared memory, 3 blocks each."""
    if not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
        pytest.skip("this kernel has no THP")
    with subprocess.Popen(
        [sys.executable, "-c", _TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        yield child
        child.kill()


@pytest.fixture
def kernel_6_12(monkeypatch, tmp_path):
    """Whatever kernel is asked for is one of 6.12, which nobody boots."""
    from secondsight.lab import kernels

    def resolve(name, modules=None):
        return kernels.Kernel(name, "6.12.118", "6.12.118-1", tmp_path / "vmlinuz", modules)

    monkeypatch.setattr(kernels, "resolve", resolve)
