"""Every command line that README and docs/ show is one that the command can read."""

from pathlib import Path

import pytest

from support import command_lines

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [
    (page, number, words)
    for page in PAGES
    for lines in (command_lines.lines_of, command_lines.inline_of)
    for number, words in lines(page)
]


def test_the_pages_show_more_than_sixty():
    assert len(SHOWN) > 60


@pytest.mark.parametrize(
    ("page", "number", "words"), SHOWN, ids=lambda v: v.name if isinstance(v, Path) else None
)
def test_a_command_line_can_be_read(page, number, words):
    command_lines.read(words)
