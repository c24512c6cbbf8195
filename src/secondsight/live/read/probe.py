"""What this kernel is and has, found by looking at what it exposes, never at its version number.

A vendor's kernel carries changes from later ones, so each of the model's rules is decided by something that changed with it::

    rule                     looked at
    writable, trace_writable the scan tracepoint has a field ``writable`` (until 6.17)
    no_table_code            its status strings name ``no_pte_table``
    lazyfree_refused         they name ``page_lazyfree``
    shared, anon first       ``struct folio`` has ``_large_mapcount``, and since 6.15 ``_mm_ids`` (BTF)
    lru_batch                length of ``folio_batch.folios`` (BTF)
    zap_transfers_accessed   KVM has ``kvm_set_pfn_accessed`` (BTF of kvm, or of vmlinux where KVM is built in): gone with 6.13's rework
    spte_era                 KVM has the variable ``kvm_ad_enabled`` (kallsyms), else as the line above
    asks_page_young          ``PG_young`` exists (BTF)

Where tracefs may not be read, BTF, which anyone may, has the tracepoint's fields (``struct trace_event_raw_mm_khugepaged_scan_pmd``) and
``enum scan_result``. What nothing shows stays open, and every reading of it is judged.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from secondsight.errors import SecondSightError
from secondsight.live.read.btf import STRUCT, Blob, Btf
from secondsight.live.read.symbols import BTF_FOLDER, Kallsyms


class Facts(msgspec.Struct, frozen=True):
    """What was found; None: could not be looked at (and *missing* says why, by name)."""

    release: str
    trace_fields: tuple[str, ...] | None = None
    trace_statuses: tuple[str, ...] | None = None
    large_mapcount: bool | None = None
    mm_ids: bool | None = None
    lru_batch: int | None = None
    page_young: bool | None = None
    change_pte: bool | None = None
    zap_transfers: bool | None = None
    soft_accessed: bool | None = None
    #: how many swap types the kernel has for device memory (bits/swap.py)
    device_types: int | None = None
    mglru: bool = False
    missing: dict[str, str] = {}


def scan_format(tracing: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Field names and status strings of the scan tracepoint.

    :raises OSError: the kernel has no such tracepoint, or no permission.
    """
    text = (tracing / "events/huge_memory/mm_khugepaged_scan_pmd/format").read_text(encoding="ascii")
    fields = [line.split(";")[0].split()[-1] for line in text.splitlines() if line.startswith("\tfield:")]
    statuses = [part.split('"')[1] for part in text.split("{")[1:] if '"' in part]
    return tuple(name for name in fields if not name.startswith("common_")), tuple(statuses)


def _members(btf: Btf, name: str) -> dict[str, int]:
    """Member names of a structure and their types' numbers; unnamed structures inside are entered."""
    number = btf.find(name, frozenset({STRUCT}))
    members: dict[str, int] = {}
    todo = [number] if number is not None else []
    while todo:
        record = btf.record(todo.pop())
        for text, kind, _ in record.words[record.at : record.at + 3 * record.members].reshape(-1, 3).tolist():
            label = btf.text(text)
            if label:
                members[label] = kind
            else:
                todo.append(kind)
    return members


#: enumerators of ``enum scan_result`` that the rules are chosen by, as the tracepoint prints them
_STATUSES = {"SCAN_NO_PTE_TABLE": "no_pte_table", "SCAN_PAGE_LAZYFREE": "page_lazyfree"}


def _tracepoint(btf: Btf) -> dict[str, object]:
    """Fields and telling statuses of the scan tracepoint; nothing where the kernel has no such types."""
    members = _members(btf, "trace_event_raw_mm_khugepaged_scan_pmd")
    fields = tuple(name for name in members if name not in ("ent", "__data"))
    if not fields or btf.find_enumerator("SCAN_SUCCEED") is None:
        return {}
    statuses = tuple(text for name, text in _STATUSES.items() if btf.find_enumerator(name) is not None)
    return {"trace_fields": fields, "trace_statuses": statuses}


def from_btf(btf: Btf, kvm: Btf | None = None) -> dict[str, object]:
    """What the types of a kernel (and of its kvm module, None where KVM is built in or not there) say."""
    kvm = btf if kvm is None else kvm
    batch = _members(btf, "folio_batch").get("folios")
    length = None
    if batch is not None:
        record = btf.record(batch)
        length = int(record.words[record.at + 2])
    return (
        _tracepoint(btf)
        | _of_kvm(kvm)
        | _of_device_memory(btf)
        | {
            "large_mapcount": "_large_mapcount" in _members(btf, "folio"),
            "mm_ids": "_mm_ids" in _members(btf, "folio"),
            "lru_batch": length,
            "page_young": btf.find_enumerator("PG_young") is not None,
            "change_pte": "change_pte" in _members(btf, "mmu_notifier_ops"),
        }
    )


def _of_device_memory(blob: Blob) -> dict[str, object]:
    """Two types for private pages; for exclusive ones two too, since make_device_exclusive (6.15) one."""
    if blob.has_function("make_device_exclusive"):
        return {"device_types": 3}
    return {"device_types": 4} if blob.has_function("make_device_exclusive_range") else {}


def _of_kvm(blob: Blob) -> dict[str, object]:
    transfers = None
    if blob.has_function("kvm_mmu_notifier_test_young"):
        transfers = blob.has_function("kvm_set_pfn_accessed")
    return {"zap_transfers": transfers, "soft_accessed": None if transfers is None else not transfers}


def _from_symbols(path: Path) -> dict[str, object]:
    symbols = Kallsyms(path.read_bytes())
    # Without data symbols (CONFIG_KALLSYMS_ALL off) its absence says nothing.
    if symbols.address("kvm_mmu_notifier_test_young") is None or symbols.address("init_mm") is None:
        return {}
    return {"soft_accessed": symbols.address("kvm_ad_enabled") is not None}


def probe(
    tracing: Path | None = None,
    btf_folder: Path = BTF_FOLDER,
    kallsyms: Path | None = Path("/proc/kallsyms"),
    types: bool = True,
) -> Facts:
    """Look at the running kernel; what may not be looked at is None and named in ``missing``.

    Two things are as much work as reading a process, and not always needed. *kallsyms* None: not asked; the kernel prints 200,000
    lines, and what they settle, ``soft_accessed``, is no part of the judgement. *types* False: BTF is not indexed unless the scan's
    tracepoint cannot be read; what is left out chooses between rules, not which of them are open (``choose_profiles.py``).
    """
    from secondsight.live.read import tracefs

    fields: dict[str, object] = {}
    missing: dict[str, str] = {}
    try:
        folder = tracefs.folder() if tracing is None else tracing
        fields["trace_fields"], fields["trace_statuses"] = scan_format(folder)
    except (SecondSightError, OSError) as error:
        missing["tracepoints"] = str(error)
    try:
        # KVM as a module has a blob of its own, once it is loaded.
        vmlinux, module = btf_folder / "vmlinux", btf_folder / "kvm"
        if types or not fields:
            base = Btf.load(vmlinux)
            fields = from_btf(base, Btf.load(module, base) if module.exists() else None) | fields
        else:
            names = Blob.load(vmlinux)
            fields |= _of_kvm(Blob.load(module, names) if module.exists() else names)
    except SecondSightError as error:
        missing["BTF"] = str(error)
    try:
        fields |= {} if kallsyms is None else _from_symbols(kallsyms)
    except (SecondSightError, OSError) as error:
        missing["symbols"] = str(error)
    lru_gen = Path("/sys/kernel/mm/lru_gen/enabled")
    try:
        fields["mglru"] = int(lru_gen.read_text(), 16) & 1 == 1
    except (OSError, ValueError):
        fields["mglru"] = False
    return facts(release=os.uname().release, missing=missing, **fields)


def facts(**fields: object) -> Facts:
    """*fields*, by the names of ``Facts``, as one."""
    return msgspec.convert(fields, Facts)
