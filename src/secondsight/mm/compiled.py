"""The rules and the host's set-up as compiled code takes them: a tuple of integers.

Only what the compiled functions of ``lru``, ``memory``, ``gup`` and ``kvm`` ask for is here; the rest of ``Rules`` is read in Python.
"""

from __future__ import annotations

from typing import NamedTuple

from secondsight.errors import UsageError
from secondsight.geometry import PMD_ORDER
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.rules import Rules

#: The orders below the PMD's.
_PARTS = (1 << PMD_ORDER) - 1


class R(NamedTuple):
    """Integers (0/1 for flags); names as in ``Rules`` and ``HostConfig``."""

    lru_batch: int
    activate_batched: int
    mlock_batched: int
    swapin_mlocks: int
    mark_needs_lru: int
    new_anon_active: int
    mglru: int
    mglru_fault_marks: int
    mglru_add_clears_referenced: int
    use_zero_page: int
    gup_fast_sets_referenced: int
    release_marks_accessed: int
    prefetch_marks_accessed: int
    zap_transfers_accessed: int
    swapin_writable: int
    huge_zero_wp_allocates: int
    retry_marks_accessed: int
    release_dirties: int
    split_pmd_keeps_dirty: int
    refault_activates: int
    touch_pmd_always: int
    mlock_counts_large: int
    split_pmd_munlocks: int
    lazyfree_keeps_referenced: int
    wp_reuses_large: int
    wp_reuses_last: int
    swapin_bypasses_cache: int
    orders_plain: int
    orders_advised: int


def compile_rules(rules: Rules, host: HostConfig) -> R:
    """The integers for *rules* on *host*; MGLRU counts only where the kernel has it.

    :raises UsageError: *host* switches sizes that the kernel does not have.
    """
    if host.sizes != Sizes() and not rules.has_sizes:
        raise UsageError(
            f"{rules.name} has no hugepages-*kB/enabled (they came in 6.8): leave out host.sizes, or take a newer kernel"
        )
    return R(
        lru_batch=rules.lru_batch,
        activate_batched=int(rules.activate_batched),
        mlock_batched=int(rules.mlock_batched),
        swapin_mlocks=int(rules.swapin_mlocks),
        mark_needs_lru=int(rules.mark_needs_lru),
        new_anon_active=int(rules.new_anon_active),
        mglru=int(host.mglru and rules.mglru_available),
        mglru_fault_marks=int(rules.mglru_fault_marks),
        mglru_add_clears_referenced=int(rules.mglru_add_clears_referenced),
        use_zero_page=int(host.use_zero_page),
        gup_fast_sets_referenced=int(rules.gup_fast_sets_referenced),
        release_marks_accessed=int(rules.release_marks_accessed),
        prefetch_marks_accessed=int(rules.prefetch_marks_accessed),
        zap_transfers_accessed=int(rules.zap_transfers_accessed),
        swapin_writable=int(rules.swapin_writable),
        huge_zero_wp_allocates=int(rules.huge_zero_wp_allocates),
        retry_marks_accessed=int(rules.retry_marks_accessed),
        release_dirties=int(rules.release_dirties),
        split_pmd_keeps_dirty=int(rules.split_pmd_keeps_dirty),
        refault_activates=int(rules.refault_activates),
        touch_pmd_always=int(rules.touch_pmd_always),
        mlock_counts_large=int(rules.mlock_counts_large),
        split_pmd_munlocks=int(rules.split_pmd_munlocks),
        lazyfree_keeps_referenced=int(host.mglru and rules.mglru_lazyfree_keeps_referenced),
        wp_reuses_large=int(rules.wp_reuses_large),
        wp_reuses_last=int(rules.wp_reuses_last),
        swapin_bypasses_cache=int(rules.swapin_bypasses_cache),
        orders_plain=host.orders(advised=False) & _PARTS,
        orders_advised=host.orders(advised=True) & _PARTS,
    )
