"""Patches on a tree and off it again, whatever happens in between."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from secondsight.errors import InputError, SecondSightError
from secondsight.lab.patches import apply, restore, touched

pytestmark = pytest.mark.skipif(shutil.which("patch") is None, reason="no patch on this machine")

CHANGE = """\
--- a/mm/huge.c\t2026-01-01
+++ b/mm/huge.c
@@ -1,2 +1,2 @@
-one
+two
 same
"""
ADD = """\
diff --git a/mm/new.c b/mm/new.c
--- /dev/null
+++ b/mm/new.c
@@ -0,0 +1 @@
+fresh
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "source/mm").mkdir(parents=True)
    (tmp_path / "source/mm/huge.c").write_text("one\nsame\n")
    return tmp_path / "source"


def written(tmp_path: Path, text: str, name: str = "a.patch") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def content(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text() for path in sorted(tree.rglob("*.c"))}


def test_what_a_patch_changes_is_read_from_it(tmp_path: Path) -> None:
    assert touched(written(tmp_path, CHANGE + ADD)) == ["mm/huge.c", "mm/new.c"]
    assert touched(written(tmp_path, "rename from mm/x.c\nrename to mm/y.c\n")) == ["mm/x.c", "mm/y.c"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("hello\n", "changes no file"), ("--- a/../../etc/x\n+++ b/../../etc/x\n", "outside the source")],
)
def test_what_is_no_patch_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        touched(written(tmp_path, text))
    with pytest.raises(InputError, match="cannot be read"):
        touched(tmp_path / "none")


def test_patches_go_on_in_their_order_and_off_again(tree: Path, tmp_path: Path) -> None:
    before, kept = content(tree), tmp_path / "kept"
    second = written(tmp_path, CHANGE.replace("-one\n+two", "-two\n+three"), "b.patch")
    apply([written(tmp_path, CHANGE + ADD), second], tree, kept)
    assert content(tree) == {"mm/huge.c": "three\nsame\n", "mm/new.c": "fresh\n"}
    restore(tree, kept)
    assert content(tree) == before and not kept.exists()


def test_one_that_does_not_apply_leaves_the_tree_as_it_was(tree: Path, tmp_path: Path) -> None:
    before, kept = content(tree), tmp_path / "kept"
    bad = written(tmp_path, CHANGE.replace("-one", "-another"), "bad.patch")
    with pytest.raises(SecondSightError, match=r"bad.patch does not apply: .*FAILED.*make it anew"):
        apply([written(tmp_path, ADD), bad], tree, kept)
    assert (
        content(tree) == before
        and not kept.exists()
        and not list(tree.rglob("*.rej")) + list(tree.rglob("*.orig"))
    )


def test_a_tree_that_shares_its_files_with_another_changes_none_of_them(tree: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.c"
    os.link(tree / "mm/huge.c", theirs)
    apply([written(tmp_path, CHANGE)], tree, tmp_path / "kept")
    assert theirs.read_text() == "one\nsame\n"
    restore(tree, tmp_path / "kept")
    assert theirs.read_text() == "one\nsame\n" == (tree / "mm/huge.c").read_text()


def test_killed_between_two_patches_it_is_restored_all_the_same(tree: Path, tmp_path: Path) -> None:
    before, kept = content(tree), tmp_path / "kept"
    apply([written(tmp_path, CHANGE + ADD)], tree, kept)
    (tree / "mm/huge.c").write_text("half")
    restore(tree, kept)
    assert content(tree) == before
