"""The model's rules for the kernel that was probed; where something cannot be probed, one set for each reading of it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from secondsight.live.read.probe import Facts
from secondsight.mm.profiles import evidence_for, for_kernel, is_asked, newest
from secondsight.mm.rules import Rules


class PossibleProfiles(NamedTuple):
    """*rules*: the readings, likeliest first; *open_points*: what tells them apart and could not be seen; *evidence*: which booted kernels
    answered as they say, in words."""

    rules: tuple[Rules, ...]
    open_points: tuple[str, ...]
    evidence: str


def choose_profiles(facts: Facts, has_vm: bool = True) -> PossibleProfiles:
    """Rules for *facts*. Points that matter only to processes with a secondary MMU are left closed unless *has_vm*."""
    changes: dict[str, Any] = {}
    points: list[tuple[str, str, tuple[Any, ...]]] = []
    older = False
    if facts.trace_fields is None:
        points.append(
            ("writable", "the scan's tracepoint could not be read (tracefs, as root)", ("none", "one"))
        )
    else:
        older = "writable" in facts.trace_fields
        changes["writable"] = "one" if older else "none"
        changes["trace_writable"] = older
    if facts.trace_statuses is not None:
        changes["no_table_code"] = "no_pte_table" if "no_pte_table" in facts.trace_statuses else "pmd_none"
        changes["lazyfree_refused"] = "page_lazyfree" in facts.trace_statuses
    if facts.large_mapcount is not None:
        changes["shared"] = "folio" if facts.large_mapcount else "page"
        changes["anon_before_shared"] = facts.large_mapcount
    if facts.lru_batch in (15, 31):
        changes["lru_batch"] = facts.lru_batch
    if facts.page_young is not None:
        changes["asks_page_young"] = facts.page_young
    if facts.change_pte is not None:
        changes["has_change_pte"] = facts.change_pte
    if facts.soft_accessed is not None:
        changes["spte_era"] = "soft" if facts.soft_accessed else "tracked"
        changes["test_young_without_ad"] = "bit" if facts.soft_accessed else "present"
    numbered = re.match(r"\d+\.\d+", facts.release) is not None
    if numbered:
        # What no interface shows is taken from the kernel's own series: 6.18 has the software accessed bit and no marks at faults.
        series = for_kernel(facts.release)
        if facts.soft_accessed and series.spte_era == "mbec":
            changes["spte_era"] = "mbec"
        changes["isolate_reuses_swap_page"] = series.isolate_reuses_swap_page
        changes["mglru_fault_marks"] = series.mglru_fault_marks
        changes["mthp_collapse"] = series.mthp_collapse
        changes["file_collapse"] = series.file_collapse
        changes["file_retract"] = series.file_retract
        changes["file_swapin_drains"] = series.file_swapin_drains
        changes["madv_collapse"] = series.madv_collapse
        changes["shmem_any_size"] = series.shmem_any_size
    if facts.zap_transfers is not None:
        changes["zap_transfers_accessed"] = facts.zap_transfers
    elif has_vm:
        points.append(
            ("zap_transfers_accessed", "whether a zap carries accessed bits to the page (KVM's symbols are not visible)",
             (older, not older))
        )  # fmt: skip
    if older and has_vm:
        # 394bfac1c7f7 went to stable trees in late 2025 and leaves no trace in any interface.
        points.append(
            ("scan_tests_base_address", "whether the scan's address bug is mended (394bfac1c7f7, in stable trees since 2025-09)",
             (False, True))
        )  # fmt: skip
    name = f"kernel {facts.release}"
    # What a booted kernel of its series was asked stands behind what is probed of this one; a kernel of another series was not asked.
    asked = for_kernel(facts.release).asked if is_asked(facts.release) else ()
    readings = [newest().derive(**changes, name=name, asked=asked)]
    for field, _, values in points:
        readings = [
            rules.derive(
                **{field: value}, name=rules.name if not at else f"{rules.name}, {field}={value}", asked=asked
            )
            for at, value in enumerate(values)
            for rules in readings
        ]
    return PossibleProfiles(
        tuple(readings), tuple(text for _, text, _ in points), evidence_for(facts.release) if numbered else ""
    )
