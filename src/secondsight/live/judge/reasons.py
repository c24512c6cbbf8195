"""What khugepaged's answers mean, in words a person can act on."""

from __future__ import annotations

from secondsight.bits.swap import EntryKind
from secondsight.glossary import TERMS

NO_ANON_VMA = "nothing was ever written to this mapping (it has no anon_vma): khugepaged skips it"

#: one entry that is not present, by what it is
ENTRIES = {
    EntryKind.GUARD: "guard page",
    EntryKind.POISON: "page poisoned by UFFDIO_POISON",
    EntryKind.HWPOISON: "page with an uncorrectable memory error",
}
#: of pages that are not present, what they are
STATES = {
    EntryKind.SWAP: "swapped out",
    EntryKind.MIGRATION: "being migrated",
    EntryKind.DEVICE: "in device memory",
    EntryKind.HWPOISON: "with an uncorrectable memory error",
    EntryKind.UFFD_WP: "write-protected by userfaultfd",
    EntryKind.POISON: "poisoned by UFFDIO_POISON",
    EntryKind.GUARD: "guard pages (MADV_GUARD_INSTALL), not swap",
    EntryKind.SPECIAL: "an entry of the kernel's own (migration, device or poison)",
}

REFUSAL = (
    "wasted pass: the scan found the block in use, a huge page was allocated and 2 MiB were unmapped from the secondary MMUs, then "
    "isolate found no reference left (since 6.13 the zap no longer carries the guest's accessed bits over); it collapses only if "
    "it is touched again before the next pass; `secondsight collapse` fixes it"
)
#: the same, of a pass to come
REFUSAL_AHEAD = (
    "the pass over it is wasted: the scan finds it in use, a huge page is allocated and 2 MiB are unmapped from the secondary MMUs, then "
    "isolate finds no reference left (since 6.13 the zap no longer carries the guest's accessed bits over); it collapses only if it "
    "is touched again before the next pass; `secondsight collapse` fixes it"
)
LOST_REFERENCE_AHEAD = (
    "the pass over it is wasted: the scan finds it in use, but unmapping the secondary MMUs moves its pages' references into an LRU "
    "batch, where isolate no longer sees them"
)
LOST_REFERENCE = (
    "wasted pass: the scan found the block in use, but unmapping the secondary MMUs moved its pages' references into an LRU batch, "
    "where isolate no longer sees them"
)

#: page_locked behind a scan that passed (__collapse_huge_page_isolate, folio_trylock of a page that it holds already)
MERGED = (
    "two of its entries map one page that KSM made of theirs: isolate cannot lock it twice, so each pass allocates a huge page, unmaps the "
    "block from the secondary MMUs and is refused, until a store parts them"
)


def words(status: str) -> str:
    """The meaning of *status*; the status itself where it is newer than this table."""
    # A mapping's reason is a sentence already, or advice by its name: MADV_HUGEPAGE keeps its underscore.
    if (term := TERMS.get(status)) and term.words:
        return term.words
    return status if " " in status or status.isupper() else status.replace("_", " ")
