"""The rules and the host's set-up as compiled code takes them: a tuple of integers, made from the fields of ``Rules`` marked *compiled*.

The rest of ``Rules`` is read in Python.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from secondsight.errors import UsageError
from secondsight.geometry import PMD_ORDER
from secondsight.mm.config import HostConfig, ShmemSizes, Sizes
from secondsight.mm.rules import Rules, compiled_names

#: The orders below the PMD's.
_PARTS = (1 << PMD_ORDER) - 1

# Its fields are known when it is imported, and not to a type checker.
_namedtuple: Any = namedtuple

_HOST = ("mglru", "use_zero_page", "orders_plain", "orders_advised", "shmem_plain", "shmem_advised")

#: Integers (0 and 1 for flags): the rules under their names, then what the host adds.
R: Any = _namedtuple("R", [*compiled_names(), *_HOST])


def compile_rules(rules: Rules, host: HostConfig) -> Any:
    """The ``R`` for *rules* on *host*.

    MGLRU, and the rules of its own (``mglru_…``), count only where the kernel has it and the host uses it.

    :raises UsageError: *host* switches what the kernel does not have.
    """
    if host.sizes != Sizes() and not rules.has_sizes:
        raise UsageError(
            f"{rules.name} has no hugepages-*kB/enabled (they came in 6.8): switch no size on under its rules, or take a newer kernel's"
        )
    if host.shmem_enabled != "never" and not rules.shmem_huge:
        raise UsageError(
            f"{rules.name}: shared memory that may be huge is modelled from 6.1 on; leave out host.shmem_enabled"
        )
    if host.shmem_sizes != ShmemSizes() and not rules.has_shmem_sizes:
        raise UsageError(
            f"{rules.name} has no hugepages-*kB/shmem_enabled (they came in 6.11): leave out host.shmem_sizes"
        )
    mglru = host.mglru and rules.mglru_available
    of_rules = {
        name: int(getattr(rules, name)) if mglru or not name.startswith("mglru_") else 0
        for name in compiled_names()
    }
    of_host = (
        int(mglru),
        int(host.use_zero_page and rules.has_huge_zero_page),
        host.orders(advised=False) & _PARTS,
        host.orders(advised=True) & _PARTS,
        host.shmem_orders(advised=False) if rules.shmem_huge else 0,
        host.shmem_orders(advised=True) if rules.shmem_huge else 0,
    )
    return R(**of_rules, **dict(zip(_HOST, of_host, strict=True)))
