"""The rule behind each answer, as a report says it."""

from secondsight.report.verdicts import VERDICTS, rule


def test_every_answer_of_khugepaged_has_its_rule():
    from secondsight.mm.khugepaged.result import ScanResult as Scan

    for code in Scan:
        assert str(code) in VERDICTS
    assert "66bc627e7fee" in rule("lack_referenced_page@isolate").cite
    assert rule("page_locked@isolate").meaning.startswith("In isolate")


def test_a_rule_of_isolate_is_its_own_or_the_scans_said_so():
    own = rule("lack_referenced_page@isolate")
    assert own.code == "lack_referenced_page@isolate" and not own.meaning.startswith("In isolate")
    borrowed = rule("page_locked@isolate")
    assert borrowed.code == "page_locked@isolate"
    assert borrowed.meaning == f"In isolate: {rule('page_locked').meaning}"
    assert "isolate" in borrowed.cite


def test_an_answer_newer_than_the_table_is_the_kernels_word():
    newer = rule("brand_new")
    assert newer.code == "brand_new" and "tracepoint" in newer.meaning and not newer.good


def test_what_leaves_a_block_huge_is_good():
    good = {code for code, verdict in VERDICTS.items() if verdict.good}
    assert {"succeeded", "fault_huge", "page_pmd_mapped"} <= good
    assert not good & {"lack_referenced_page", "exceed_none_pte", "split", "policy_split"}
