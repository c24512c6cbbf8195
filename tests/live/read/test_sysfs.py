"""Transparent huge pages' files in sysfs, read from a folder laid out as a kernel's."""

import msgspec
import pytest

from secondsight.errors import MissingDependency
from secondsight.live.read.sysfs import knobs, shmem_enabled, switch, thp_enabled
from secondsight.mm.config import Knobs


def laid(folder, **files):
    """Files in *folder*; __ in a name stands for a slash."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return folder


def sized(folder, name, word):
    """*folder* with the file *name* of 2 MiB."""
    (folder / "hugepages-2048kB").mkdir(exist_ok=True)
    (folder / "hugepages-2048kB" / name).write_text(word)
    return folder


def test_a_switch_is_the_word_in_brackets(tmp_path):
    path = tmp_path / "enabled"
    for text, word in (("always [madvise] never", "madvise"), ("[always]", "always"), ("always", "never")):
        path.write_text(text)
        assert switch(path) == word
    with pytest.raises(MissingDependency, match=r"gone: this kernel has no transparent huge pages"):
        switch(tmp_path / "gone")


@pytest.mark.parametrize(
    ("whole", "own", "word"),
    [("madvise", None, "madvise"), ("madvise", "inherit", "madvise"), ("always", "never", "never"), ("never", "always", "always")],
)  # fmt: skip
def test_2_mib_is_as_its_own_word_says_unless_that_inherits(tmp_path, whole, own, word):
    laid(tmp_path, enabled=f"[{whole}]")
    if own:
        sized(tmp_path, "enabled", f"[{own}]")
    assert thp_enabled(tmp_path) == word


@pytest.mark.parametrize(
    ("whole", "own", "word"),
    [
        ("advise", None, "advise"), ("advise", "inherit", "advise"), ("never", "within_size", "within_size"),
        ("deny", "always", "deny"), ("force", "never", "force"),
    ],
)  # fmt: skip
def test_shared_memory_has_two_words_that_win_over_the_sizes_own(tmp_path, whole, own, word):
    laid(tmp_path, shmem_enabled=f"[{whole}]")
    if own:
        sized(tmp_path, "shmem_enabled", f"[{own}]")
    assert shmem_enabled(tmp_path) == word


def test_a_kernel_without_the_switch_of_shared_memory_has_no_word(tmp_path):
    assert shmem_enabled(tmp_path) == ""


def test_khugepageds_limits_are_all_read_or_the_missing_file_named(tmp_path):
    values = {name: 7 + at for at, name in enumerate(Knobs.__struct_fields__)}
    laid(tmp_path, **{f"khugepaged__{name}": value for name, value in values.items()})
    assert msgspec.to_builtins(knobs(tmp_path)) == values
    (tmp_path / "khugepaged/max_ptes_shared").unlink()
    with pytest.raises(MissingDependency, match=r"max_ptes_shared: this kernel has no khugepaged"):
        knobs(tmp_path)
