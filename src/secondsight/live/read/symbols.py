"""The kernel's symbols, and whether its memory can be read at all; needs no drgn.

A line of ``/proc/kallsyms``::

    ffffffff81000000 T _stext
    ffffffffc0a01000 t kvm_mmu_notifier_test_young\t[kvm]
    address          kind name                     module
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol

from secondsight.errors import MissingDependency

BTF_FOLDER = Path("/sys/kernel/btf")
_KCORE = Path("/proc/kcore")


def kcore_problem() -> str:
    """Empty if ``/proc/kcore`` may be read; else why not."""
    if not _KCORE.exists():
        return "/proc/kcore: this kernel does not have it (CONFIG_PROC_KCORE); kernel memory cannot be read"
    if not os.access(_KCORE, os.R_OK):
        return "/proc/kcore: permission denied; kernel memory needs root (CAP_SYS_RAWIO, no lockdown)"
    return ""


class Symbols(Protocol):
    """Addresses of names, and back."""

    def address(self, name: str) -> int | None:
        """Address of *name*, None if the kernel has no such symbol."""

    def name_at(self, address: int) -> str | None:
        """Name of the symbol that starts at *address*."""


class Kallsyms:
    """``/proc/kallsyms``, kept as text: a handful of lookups cost less than parsing 200,000 lines."""

    def __init__(self, text: bytes) -> None:
        """Take the file's content.

        :raises MissingDependency: the addresses are hidden (kptr_restrict).
        """
        self._text = text
        self._addresses: dict[str, int | None] = {}
        self._named: dict[int, str | None] = {}
        # Per-CPU symbols start at 0 on some kernels; hidden ones are all 0.
        if not re.search(rb"^0*[1-9a-f]", text, re.MULTILINE):
            raise MissingDependency(
                "/proc/kallsyms: addresses are hidden; be root with kernel.kptr_restrict below 2"
            )

    def address(self, name: str) -> int | None:
        """Address of *name*, in vmlinux or any module; searched for once."""
        if name not in self._addresses:
            self._addresses[name] = self._search(name)
        return self._addresses[name]

    def _search(self, name: str) -> int | None:
        for ending in (b"\n", b"\t"):
            at = self._text.find(b" " + name.encode() + ending)
            if at >= 0:
                line = self._text[self._text.rfind(b"\n", 0, at) + 1 : at]
                return int(line.split()[0], 16)
        return None

    def name_at(self, address: int) -> str | None:
        """A function's or variable's name at exactly *address*; searched for once."""
        if address not in self._named:
            self._named[address] = self._search_name(address)
        return self._named[address]

    def _search_name(self, address: int) -> str | None:
        at = self._text.find(b"%016x " % address)
        if at < 0:
            return None
        line = self._text[at : self._text.find(b"\n", at)]
        return line.split()[2].decode("ascii", "replace")
