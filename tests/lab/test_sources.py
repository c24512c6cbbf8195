"""A kernel's source: which trees are one, what of the user's own is brought, and that it stays as it was."""

import os
import shutil
from collections import namedtuple

import pytest

from secondsight.errors import SecondSightError, UsageError
from secondsight.lab import sources
from secondsight.lab.sources import check, debian, own, require_space


def tree_of(folder, version="VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n"):
    for part in ("mm", "arch/x86"):
        (folder / part).mkdir(parents=True)
    (folder / "Makefile").write_text(version)
    (folder / "mm/huge.c").write_text("int huge;\n")
    (folder / "scripts").symlink_to("mm")
    return folder


@pytest.fixture
def tree(tmp_path):
    return tree_of(tmp_path / "linux")


def bring(tree, tmp_path):
    return own(tree, tmp_path / "cache", lambda text: None)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n", "7.3.4"),
        ("VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\n", "7.4.0-rc2"),
        ("VERSION=6\nPATCHLEVEL\t=\t12\nSUBLEVEL =\nEXTRAVERSION =\n", "6.12.0"),
    ],
)
def test_a_tree_says_its_version(tmp_path, text, version):
    assert check(tree_of(tmp_path / "linux", text)) == version


@pytest.mark.parametrize("lacks", ["Makefile", "mm", "arch"])
def test_what_lacks_a_part_is_no_linux_source(tree, lacks):
    path = tree / lacks
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(UsageError, match="no Linux source"):
        check(tree)


def test_a_makefile_without_a_version_is_none(tree):
    (tree / "Makefile").write_text("all:\n")
    with pytest.raises(UsageError, match="says no version"):
        check(tree)


def test_the_users_tree_is_linked_and_stays_as_it_was(tree, tmp_path):
    source = bring(tree, tmp_path)
    assert (
        source.version == "7.3.4"
        and source.name == str(tree)
        and source.folder.parent == tmp_path / "cache/builds"
    )
    assert (source.tree / "mm/huge.c").samefile(tree / "mm/huge.c") and (source.tree / "scripts").is_symlink()
    assert bring(tree, tmp_path).identity == source.identity


def test_what_has_changed_is_brought_again_and_what_went_is_removed(tree, tmp_path):
    source = bring(tree, tmp_path)
    (tree / "mm/huge.c").unlink()
    (tree / "mm/other.c").write_text("int other;\n")
    (tree / "mm/deep").mkdir()
    again = bring(tree, tmp_path)
    assert again.identity != source.identity and again.folder == source.folder
    assert sorted(path.name for path in (again.tree / "mm").iterdir()) == ["deep", "other.c"]
    (tree / "mm/deep").rmdir()
    (tree / "mm/deep").write_text("a file now\n")
    assert (bring(tree, tmp_path).tree / "mm/deep").read_text() == "a file now\n"


def test_on_another_disk_files_are_copied_with_their_times(tree, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = bring(tree, tmp_path)
    copied, given = (source.tree / "mm/huge.c").stat(), (tree / "mm/huge.c").stat()
    assert copied.st_ino != given.st_ino and copied.st_mtime_ns == given.st_mtime_ns


def test_a_disk_that_fails_is_said(tree, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(SecondSightError, match=r"cannot be brought into .*: Input/output error"):
        bring(tree, tmp_path)


@pytest.mark.parametrize("built", [".config", "include/config/auto.conf"])
def test_a_tree_that_was_built_in_is_refused(tree, tmp_path, built):
    (tree / built).parent.mkdir(parents=True, exist_ok=True)
    (tree / built).write_text("")
    with pytest.raises(UsageError, match="make mrproper"):
        bring(tree, tmp_path)


def test_two_trees_of_one_name_have_folders_of_their_own(tmp_path):
    first, second = (bring(tree_of(tmp_path / where / "linux"), tmp_path) for where in "ab")
    assert first.folder != second.folder and first.folder.name.startswith("linux-")


def test_debians_source_of_a_version_that_is_there_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "Archive", lambda *_: pytest.fail("asks the archive"))
    folder = tmp_path / "builds/linux-source-7.3_7.3.4-1"
    (folder / "source").mkdir(parents=True)
    source = debian("linux-source-7.3=7.3.4-1", tmp_path, lambda text: None)
    assert (source.name, source.version, source.tree) == ("linux-source-7.3", "7.3.4-1", folder / "source")


def test_room_is_asked_for_before_it_is_needed(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 0, 10**9))
    require_space(tmp_path, 10**9, "a thing")
    with pytest.raises(SecondSightError, match=r"a thing needs 1\.0 GB in .*, and 1\.0 GB are free"):
        require_space(tmp_path, 10**9 + 1, "a thing")
