"""docs/reading-khugepaged.md is what the comments of the source say.

``python tests/docs/test_reading_khugepaged.py`` writes its tables anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secondsight.mm.khugepaged.checks import ISOLATE_ORDER, SCAN_ORDER
from secondsight.mm.khugepaged.result import ScanResult

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "secondsight" / "mm" / "khugepaged"
PAGE = ROOT / "docs" / "reading-khugepaged.md"
#: A part of the page, its file, and the kernel's function that its lines are of.
PARTS = {
    "scan": ("scan.py", "collapse_scan_pmd"),
    "isolate": ("isolate.py", "__collapse_huge_page_isolate"),
    "attempt": ("attempt.py", "collapse_huge_page"),
    "orders": ("orders.py", "mthp_collapse"),
    "scan_file": ("scan_file.py", "collapse_scan_file"),
    "collapse_file": ("collapse_file.py", "collapse_file"),
    "retract": ("retract.py", "try_collapse_pte_mapped_thp"),
}
_LINES = re.compile(r"7\.3 (?:at )?lines? ([\d, and-]+\d)")


def rows(name: str) -> list[str]:
    """The checks of one file, in the kernel's order, as rows of a table: our sentence, what it answers, the kernel's line, our function."""
    path, function = PARTS[name]
    lines = (PACKAGE / path).read_text().splitlines()
    out: list[tuple[int, str]] = []
    at, ours = 0, ""
    while at < len(lines):
        if definition := re.match(r"def (\w+)", lines[at]):
            ours = definition[1]
        comment = []
        while at < len(lines) and (comment_line := re.match(r"\s*#:? (.*)", lines[at])):
            comment.append(comment_line[1])
            at += 1
        text = " ".join(comment)
        if (where := _LINES.search(text)) and ours:
            sentence = re.sub(r"\s*\([^()]*7\.3[^()]*\)", "", text).strip()
            result = _result(lines[at : at + 12])
            out.append(
                (
                    int(re.findall(r"\d+", where[1])[0]),
                    f"| {sentence} | {result} | `{function}` {where[1]} | `{path}` `{ours}` |",
                )
            )
        at += not comment
    return [row for _, row in sorted(out, key=lambda each: each[0])]


def _result(code: list[str]) -> str:
    """The first result that the lines under a comment answer with."""
    for line in code:
        if re.match(r"\s*# ", line):
            break
        if named := re.search(r"ScanResult\.(\w+)", line):
            return f"`{ScanResult[named[1]]}`" if named[1] != "SUCCEED" else ""
    return ""


def written(page: str) -> str:
    """*page* with its tables as the source has them now."""
    for name in PARTS:
        table = ["| our sentence | answers | 7.3.4 | ours |", "|---|---|---|---|", *rows(name)]
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda markers, table=table: markers[1] + "\n".join(table) + "\n" + markers[2],
            page,
            flags=re.S,
        )
    return page


def test_the_tables_are_the_sources_own() -> None:
    page = PAGE.read_text()
    assert written(page) == page, "run python tests/docs/test_reading_khugepaged.py"


@pytest.mark.parametrize(("name", "orders"), [("scan", SCAN_ORDER), ("isolate", ISOLATE_ORDER)])
def test_every_result_of_the_tables_of_orders_stands_on_the_page(name, orders) -> None:
    shown = "\n".join(rows(name))
    for code in {code for order in orders.values() for code in order} - {"PAGE_RO", "SWAP_CACHE_PAGE"}:
        assert f"`{ScanResult[code]}`" in shown, code


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
