"""Each page says first for whom it is, and what they can do after it; each link of a page leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
READERS = ("operator", "kernel engineer", "researcher", "contributor", "everyone", "author")


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_a_page_says_for_whom_it_is(page):
    first = page.read_text().split("\n\n")[1]
    assert re.fullmatch(r"\*For [a-z ,]+: after this page you [^*]+\.\*", first)
    assert any(reader in first for reader in READERS)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


def test_readme_names_every_page():
    named = set(re.findall(r"\(docs/([\w-]+)\.md\)", (ROOT / "README.md").read_text()))
    assert named == {page.stem for page in DOCS}
