"""The switches as this machine has them: sysfs' chosen words, tmpfs mounts' options, and what holds for 2 MiB."""

import os

import pytest

from secondsight.live.read.switches import Switches, mounts_of, read


def test_the_options_of_mounts(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_text(
        "25 1 0:32 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=64k,huge=within_size\n"
        "26 1 0:33 / /run rw - tmpfs tmpfs rw\n27 1 254:1 / / rw - ext4 /dev/vda1 rw\n28 1 torn\n"
    )
    assert mounts_of(path.read_text()) == {"00:20": "within_size", "00:21": "never"}
    assert read(7, tmp_path / "nowhere", tmp_path / "nowhere").mounts == {}


@pytest.mark.parametrize(
    ("switches", "anonymous", "shmem"),
    [
        (Switches(), "never", "never"),
        (Switches(enabled="madvise", shmem_enabled="advise"), "madvise", "advise"),
        (Switches(enabled="madvise", enabled_size="inherit", shmem_enabled="advise", shmem_size="inherit"), "madvise", "advise"),
        (Switches(enabled="never", enabled_size="always", shmem_enabled="never", shmem_size="always"), "always", "always"),
        (Switches(enabled="always", enabled_size="never", shmem_enabled="deny", shmem_size="always"), "never", "deny"),
    ],
)  # fmt: skip
def test_the_word_that_holds_for_2_mib(switches, anonymous, shmem):
    assert (switches.effective, switches.effective_shmem) == (anonymous, shmem)


def laid(folder, **files):
    """Switch files in *folder*; __ stands for / and -- is as it is."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_each_file_is_its_chosen_word_and_one_that_is_not_there_an_empty_one(tmp_path):
    laid(
        tmp_path, enabled="always [madvise] never", shmem_enabled="always within_size [advise] never deny force",
        defrag="always defer [defer+madvise] madvise never", use_zero_page="1", khugepaged__defrag="1",
    )  # fmt: skip
    for kb, word in ((2048, "always [inherit] madvise never"), (64, "[always] inherit madvise never")):
        (tmp_path / f"hugepages-{kb}kB").mkdir()
        (tmp_path / f"hugepages-{kb}kB/enabled").write_text(word)
    (tmp_path / "hugepages-8kB").mkdir()  # shared memory alone has it
    (tmp_path / "hugepages-8kB/shmem_enabled").write_text("[never]")
    switches = read(7, tmp_path, tmp_path)
    assert (switches.enabled, switches.enabled_size) == ("madvise", "inherit")
    assert (switches.shmem_enabled, switches.shmem_size) == ("advise", "")
    assert (switches.defrag, switches.use_zero_page, switches.khugepaged_defrag) == (
        "defer+madvise",
        "1",
        "1",
    )
    assert switches.sizes == {64: "always", 2048: "inherit"} and list(switches.sizes) == [64, 2048]
    nothing = read(7, tmp_path / "nowhere", tmp_path)
    assert (nothing.enabled, nothing.sizes, nothing.effective, nothing.effective_shmem) == (
        "",
        {},
        "never",
        "never",
    )


def test_the_kernels_own_mount_is_that_of_a_memfd_of_ours(tmp_path):
    fd = os.memfd_create("beside")
    try:
        device = os.fstat(fd).st_dev
    finally:
        os.close(fd)
    assert read(os.getpid()).internal == f"{os.major(device):02x}:{os.minor(device):02x}"


@pytest.mark.parametrize(
    ("line", "mounts"),
    [
        ("1 2 8:17 / /a rw - tmpfs none rw,huge=always", {"08:11": "always"}),
        ("1 2 8:17 / /a rw shared:1 master:2 - tmpfs none huge=advise,size=1k", {"08:11": "advise"}),
        ("1 2 259:3 / /a rw - devtmpfs none rw", {"103:03": "never"}),
        ("1 2 8:17 / /a rw - tmpfs none rw,nohuge=always", {"08:11": "never"}),
        ("1 2 8:17 / /a rw - ext4 /dev/x rw,huge=always", {}),
        ("", {}),
    ],
)
def test_a_line_of_mountinfo(line, mounts):
    assert mounts_of(line) == mounts


@pytest.mark.parametrize(
    ("sizes", "enabled", "whole", "advised", "orders"),
    [
        ({}, "always", "always", False, {9}),
        ({}, "madvise", "madvise", False, set()),
        ({}, "madvise", "madvise", True, {9}),
        ({64: "always", 128: "madvise", 256: "never"}, "never", "never", False, {4}),
        ({64: "always", 128: "madvise", 256: "never"}, "never", "never", True, {4, 5}),
        ({32: "inherit"}, "madvise", "always", False, {3}),
        ({8: "always"}, "never", "never", True, set()),  # anonymous memory has no folios of two pages
    ],
)
def test_the_orders_of_anonymous_memory_are_those_whose_word_allows_them(
    sizes, enabled, whole, advised, orders
):
    mask = Switches(enabled=whole, sizes=sizes).anon_orders(enabled, advised=advised)
    assert {order for order in range(16) if mask >> order & 1} == orders
