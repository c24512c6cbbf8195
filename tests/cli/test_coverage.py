"""What a kernel answered, by order, and what it was asked too seldom."""

from secondsight.cli.coverage import show
from secondsight.lab.coverage import FEW, NOT_MADE, Seen

SCAN, COLLAPSE = "mm_khugepaged_scan_pmd", "mm_collapse_huge_page"
COVERED = [
    Seen(SCAN, -1, "succeeded", 12),
    Seen(SCAN, -1, "pte_non_present", 3),
    Seen(COLLAPSE, 4, "succeeded", 7),
    Seen(COLLAPSE, 9, "succeeded", 5),
]


def test_a_row_for_each_answer_a_column_for_each_order(capsys):
    show(COVERED, [])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("what the kernel answered")
    assert lines[1].split() == ["tracepoint", "result", "block", "4", "9"]
    assert [line.split() for line in lines[2:5]] == [
        [SCAN, "succeeded", "12"],
        ["pte_non_present", "3"],
        [COLLAPSE, "succeeded", "7", "5"],
    ]
    # Right under their orders.
    assert lines[4].index("7") == lines[1].index("4") and lines[4].index("5") == lines[1].index("9")


def test_what_was_seen_too_seldom_has_its_orders_and_what_cannot_be_made_its_reason(capsys):
    show(
        COVERED, [Seen(COLLAPSE, 4, "fail", 1), Seen(COLLAPSE, 9, "fail", 0), Seen(SCAN, -1, "page_lock", 2)]
    )
    out = capsys.readouterr().out
    assert f"was seen fewer than {FEW} times:\n" in out
    assert f"  {COLLAPSE}  fail (4: 1, 9: 0)\n" in out and f"  {SCAN}  page_lock (2)\n" in out
    last = out.splitlines()[-1]
    assert last.startswith("cannot be made here: ") and all(f"{result} (" in last for result in NOT_MADE)
    show(COVERED, [])
    assert "fewer than" not in capsys.readouterr().out
