"""What khugepaged's answers mean, in words."""

from secondsight.bits.swap import FAILING, EntryKind
from secondsight.live.judge import reasons
from secondsight.mm.khugepaged.checks import ISOLATE_ORDER, SCAN_ORDER
from secondsight.mm.khugepaged.result import ScanResult


def test_a_status_has_its_words_and_one_newer_than_the_table_its_own():
    assert reasons.words("page_pmd_mapped") == "is huge already"
    assert reasons.words("brand_new_result") == "brand new result"
    assert reasons.words("MADV_HUGEPAGE was not given here") == "MADV_HUGEPAGE was not given here"
    assert reasons.words("MADV_NOHUGEPAGE") == "MADV_NOHUGEPAGE"


def test_what_scan_and_isolate_check_has_words_of_its_own():
    checked = {name for table in (SCAN_ORDER, ISOLATE_ORDER) for names in table.values() for name in names}
    for name in checked | {"EXCEED_NONE_PTE", "EXCEED_SWAP_PTE", "LACK_REFERENCED_PAGE", "PMD_MAPPED"}:
        code = str(ScanResult[name])
        assert reasons.words(code) != code.replace("_", " "), code


def test_whatever_fails_to_be_swapped_in_can_be_named_and_counted():
    assert set(FAILING) <= set(reasons.ENTRIES), "one of them: a guard page"
    assert set(reasons.STATES) == set(EntryKind) - {EntryKind.NONE, EntryKind.UNREAD}, "several of them"
