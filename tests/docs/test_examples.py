"""The documents' Python is run, and what it claims to print it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def code_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def claims_of(page: str) -> list[str]:
    """What the page says its code prints: in a comment behind the print, or indented under a line that says "prints"."""
    text = (DOCS / page).read_text()
    said = re.findall(r"^print\(.*\)  # (.*)$", text, flags=re.MULTILINE)
    for block in re.findall(r"^prints\n\n((?:    .*\n)+)", text, flags=re.MULTILINE):
        said += [line.strip() for line in block.splitlines()]
    return said


@pytest.mark.parametrize("page", ["add-a-secondary-mmu.md", "model.md", "add-a-kernel-version.md"])
def test_the_code_of_a_page_runs(page, capsys) -> None:
    blocks = code_of(page)
    assert blocks
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), space)
    assert capsys.readouterr().out.splitlines() == claims_of(page) != []


def test_the_secondary_mmu_is_short() -> None:
    nic = code_of("add-a-secondary-mmu.md")[0]
    lines = [line for line in nic[nic.index("class Nic") :].splitlines() if line.strip()]
    assert len(lines) <= 30
