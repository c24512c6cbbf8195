"""A snapshot as it would be under other switches and limits: ``explain --if enabled=always``. Nothing is changed anywhere.

A switch that changes registers nobody: a process that khugepaged does not know stays unknown to it (``surroundings.py``).
"""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec

from secondsight.errors import UsageError
from secondsight.geometry import ANON_ORDERS, PMD_ORDER, kb_of_order, order_of_kb
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.eligible import judge
from secondsight.live.read.switches import Switches
from secondsight.live.read.thp_disabled import ThpDisabled
from secondsight.live.read.vma import Vma
from secondsight.mm.config import Knobs

_ANONYMOUS = ("always", "madvise", "never")
_SHMEM = ("always", "within_size", "advise", "never")
#: each switch that may be supposed: the field of ``Switches``, and what it may say
_WORDS = {
    "enabled": ("enabled", _ANONYMOUS),
    "hugepages-2048kB/enabled": ("enabled_size", (*_ANONYMOUS, "inherit")),
    "shmem_enabled": ("shmem_enabled", (*_SHMEM, "force", "deny")),
    "hugepages-2048kB/shmem_enabled": ("shmem_size", (*_SHMEM, "inherit")),
}
_FIELDS = frozenset(field for field, _ in _WORDS.values())
_LIMITS = ("max_ptes_none", "max_ptes_swap", "max_ptes_shared", "pages_to_scan", "scan_sleep_millisecs")


def parse(settings: list[str]) -> tuple[dict[str, str], dict[str, int]]:
    """``name=value`` as (words of ``Switches`` by field, of a size below 2 MiB by its file; limits by name).

    :raises UsageError: an unknown name, or a value that sysfs refuses.
    """
    words: dict[str, str] = {}
    limits: dict[str, int] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        size = re.fullmatch(r"hugepages-(\d{1,9})kB/enabled", name)
        if equals and size and name not in _WORDS:
            if order_of_kb(int(size[1])) not in ANON_ORDERS:
                known = ", ".join(str(kb_of_order(order)) for order in ANON_ORDERS)
                raise UsageError(f"--if {text}: anonymous memory has no size of {size[1]} kB, but {known}")
            if value not in (*_ANONYMOUS, "inherit"):
                raise UsageError(f"--if {text}: {name} is one of {', '.join((*_ANONYMOUS, 'inherit'))}")
            words[name] = value
        elif equals and name in _WORDS:
            field, allowed = _WORDS[name]
            if value not in allowed:
                raise UsageError(f"--if {text}: {name} is one of {', '.join(allowed)}")
            words[field] = value
        elif equals and name in _LIMITS and value.isascii() and value.isdigit():
            limits[name] = int(value)
        else:
            raise UsageError(
                f"--if {text}: write NAME=VALUE, NAME one of {', '.join((*_WORDS, *_LIMITS))}, hugepages-*kB/enabled"
            )
    return words, limits


def suppose(snapshot: Snapshot, settings: list[str]) -> Snapshot:
    """*snapshot* under *settings*, as :func:`parse` takes them.

    :raises UsageError: as :func:`parse`.
    """
    words, limits = parse(settings)
    header = snapshot.header
    try:
        knobs = msgspec.convert(msgspec.to_builtins(header.limits) | limits, Knobs)
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"--if: {error}") from None
    now = header.switches
    sizes = {int(re.sub(r"\D", "", name)): words.pop(name) for name in tuple(words) if name not in _FIELDS}
    if sizes and not now.sizes:
        raise UsageError(
            "--if hugepages-*kB/enabled: this kernel has no switches by size (6.8 on), or the snapshot is older than their reading"
        )
    if "enabled_size" in words and now.sizes:
        sizes[kb_of_order(PMD_ORDER)] = words["enabled_size"]
    then = msgspec.structs.replace(now, **words, sizes=now.sizes | sizes)
    enabled = header.enabled
    if words.keys() & {"enabled", "enabled_size"}:
        # Without the words of the switches (a dump, an older snapshot) the effective one is all there is.
        whole = then.enabled or header.enabled
        enabled = whole if then.enabled_size in ("", "inherit") else then.enabled_size
    refused = header.surroundings.thp_disabled is ThpDisabled.ALL
    mappings = (
        header.mappings if refused else tuple(unsaid(vma, header.enabled, now) for vma in header.mappings)
    )
    changed = msgspec.structs.replace(header, limits=knobs, enabled=enabled, switches=then, mappings=mappings)
    return replace(snapshot, header=changed)


def unsaid(vma: Vma, enabled: str, switches: Switches) -> Vma:
    """*vma* without the kernel's ``THPeligible: 0`` where the switches of now explain it: under others it may be 1.

    *enabled*, *switches*: as they are.
    """
    if vma.eligible is not False:
        return vma
    silent = msgspec.structs.replace(vma, eligible=None)
    return silent if judge(silent, enabled, switches).refused else vma
