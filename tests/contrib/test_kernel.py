"""The patch to khugepaged: well formed, as large as its letter says, and its expectations are kinds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from secondsight.lab.diff import read
from secondsight.lab.patches import touched

FOLDER = Path(__file__).resolve().parents[2] / "contrib" / "kernel"
PATCH = FOLDER / "0001-mm-khugepaged-count-what-the-scan-found-referenced.patch"


def test_every_hunk_has_the_lines_that_its_header_counts() -> None:
    text = PATCH.read_text()
    assert touched(PATCH) == ["mm/khugepaged.c"]
    hunks = re.split(r"^@@ -\d+,(\d+) \+\d+,(\d+) @@.*\n", text, flags=re.MULTILINE)
    assert len(hunks) == 1 + 3 * 4
    for old, new, body in zip(hunks[1::3], hunks[2::3], hunks[3::3], strict=True):
        lines = body.splitlines()
        assert sum(line[:1] in " -" for line in lines) == int(old)
        assert sum(line[:1] in " +" for line in lines) == int(new)


def test_the_letters_count_what_is_changed() -> None:
    text = PATCH.read_text()
    body = text[text.index("\n@@") :]
    added, removed = (len(re.findall(rf"^\{sign}", body, re.MULTILINE)) for sign in "+-")
    for letter in (text, (FOLDER / "0000-cover-letter.txt").read_text()):
        assert f"{added} insertions(+), {removed} deletions(-)" in letter
        assert all(
            len(line) <= 80
            for line in letter[: letter.find("\ndiff ")].splitlines()
            if not line.startswith("Fixes:")
        )


def test_the_expectations_are_kinds_that_must_and_may_be_found() -> None:
    expected = read(FOLDER / "expect-7.3")
    assert expected.must[0] == "isolate.referenced: less → more; status: lack_referenced_page → succeeded"
    assert all(kind.endswith("→ succeeded") for kind in expected.may)


def test_the_script_for_the_guest_is_python() -> None:
    ast.parse((FOLDER / "guest_faults.py").read_text())
