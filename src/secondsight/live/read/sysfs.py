"""Transparent huge pages' switches and limits in sysfs, read only."""

from __future__ import annotations

from pathlib import Path

from secondsight.errors import MissingDependency
from secondsight.mm.config import Knobs

THP = Path("/sys/kernel/mm/transparent_hugepage")


def switch(path: Path) -> str:
    """The word in brackets of a sysfs switch such as ``always [madvise] never``.

    :raises MissingDependency: the kernel has no such file.
    """
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError:
        raise MissingDependency(f"{path}: this kernel has no transparent huge pages") from None
    return next((word[1:-1] for word in words if word.startswith("[")), "never")


def thp_enabled(folder: Path = THP) -> str:
    """``always``, ``madvise`` or ``never`` for 2 MiB pages; the size's own switch wins where it does not inherit."""
    whole = switch(folder / "enabled")
    own = folder / "hugepages-2048kB" / "enabled"
    if own.exists():
        word = switch(own)
        return whole if word == "inherit" else word
    return whole


def shmem_enabled(folder: Path = THP) -> str:
    """The switch of shared memory for 2 MiB pages, such as ``never`` or ``advise``; empty where this kernel has none."""
    try:
        whole = switch(folder / "shmem_enabled")
        own = folder / "hugepages-2048kB" / "shmem_enabled"
        word = switch(own) if own.exists() else "inherit"
    except MissingDependency:
        return ""
    return whole if word == "inherit" or whole in ("deny", "force") else word


def knobs(folder: Path = THP) -> Knobs:
    """khugepaged's limits as this kernel has them now.

    :raises MissingDependency: the kernel has no khugepaged.
    """
    try:
        values = {name: int((folder / "khugepaged" / name).read_text()) for name in Knobs.__struct_fields__}
    except OSError as error:
        raise MissingDependency(f"{error.filename}: this kernel has no khugepaged") from None
    return Knobs(**values)
