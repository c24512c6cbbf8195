"""The host's settings, in a tree of files: what a scenario's host says is written, and nothing that stands so already."""

import msgspec
import pytest

from secondsight.lab.agent import knobs
from secondsight.lab.agent.libc import SysError
from secondsight.mm.config import HostConfig, Knobs, ShmemSizes, Sizes

CHOICES = "always inherit madvise never"


@pytest.fixture
def thp(tmp_path, monkeypatch):
    """transparent_hugepage/, with what 6.12 has in it; each file says what is chosen."""
    files = {
        "enabled": "always [madvise] never", "use_zero_page": "1", "shmem_enabled": "always within_size advise [never] deny force",
        "khugepaged/defrag": "1", "khugepaged/max_ptes_none": "511", "khugepaged/max_ptes_swap": "64",
        "khugepaged/max_ptes_shared": "256", "khugepaged/pages_to_scan": "4096", "khugepaged/alloc_sleep_millisecs": "60000",
        "hugepages-64kB/enabled": "always inherit madvise [never]", "hugepages-2048kB/enabled": "always [inherit] madvise never",
        "hugepages-64kB/shmem_enabled": "always inherit within_size advise [never]",
        "hugepages-2048kB/shmem_enabled": "always [inherit] within_size advise never",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(knobs, "THP", tmp_path)
    monkeypatch.setattr(knobs, "KHUGEPAGED", tmp_path / "khugepaged")
    monkeypatch.setattr(knobs.time, "sleep", lambda seconds: None)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "value"),
    [("7\n", "7"), ("always [madvise] never\n", "madvise"), ("[only]", "only"), ("two words\n", "two words")],
)
def test_a_file_says_its_value_or_what_is_chosen(tmp_path, text, value):
    (tmp_path / "file").write_text(text)
    assert knobs.read(tmp_path / "file") == value
    knobs.put(tmp_path / "file", 12)
    assert (tmp_path / "file").read_text() == "12\n"


def test_the_host_is_set_as_the_scenario_says(thp):
    host = HostConfig(
        thp_enabled="always", use_zero_page=False, knobs=Knobs(max_ptes_none=7, max_ptes_swap=8, max_ptes_shared=9),
        sizes=Sizes(kb64="always"), shmem_enabled="advise", shmem_sizes=ShmemSizes(kb64="advise"),
    )  # fmt: skip
    knobs.settle(host)
    written = {name: (thp / name).read_text().strip() for name in (
        "enabled", "use_zero_page", "khugepaged/max_ptes_none", "khugepaged/max_ptes_swap", "khugepaged/max_ptes_shared",
        "hugepages-64kB/enabled", "hugepages-64kB/shmem_enabled", "shmem_enabled",
    )}  # fmt: skip
    assert list(written.values()) == ["always", "0", "7", "8", "9", "always", "advise", "advise"]
    # One waking is a whole pass.
    assert int((thp / "khugepaged/pages_to_scan").read_text()) == 0xFFFF_FFFF


def test_what_stands_so_already_is_not_written(thp, monkeypatch):
    wrote = []
    real = knobs.put
    monkeypatch.setattr(knobs, "put", lambda path, value: wrote.append(str(path)) or real(path, value))
    knobs.thp_enabled("madvise")
    knobs.sizes(HostConfig())
    knobs.shmem(HostConfig())
    assert wrote == []
    knobs.thp_enabled("never")
    assert wrote == [str(thp / "enabled")]


def test_no_size_inherits_while_force_stands(thp, monkeypatch):
    (thp / "shmem_enabled").write_text("always within_size advise never deny [force]\n")
    (thp / "hugepages-2048kB/shmem_enabled").write_text("[always] inherit within_size advise never\n")
    order = []
    real = knobs.put
    monkeypatch.setattr(
        knobs, "put", lambda path, value: order.append((path.name, value)) or real(path, value)
    )
    knobs.shmem(msgspec.structs.replace(HostConfig(), shmem_enabled="force"))
    # Taken off first, then the size, and force again.
    assert order == [("shmem_enabled", "never"), ("shmem_enabled", "inherit"), ("shmem_enabled", "force")]


def test_a_kernel_without_sizes_or_shmem_has_none_to_set(thp):
    for path in [*thp.glob("hugepages-*/*"), thp / "shmem_enabled"]:
        path.unlink()
    knobs.settle(HostConfig(shmem_enabled="force"))
    assert not (thp / "shmem_enabled").exists() and not list(thp.glob("hugepages-*/*"))


def test_khugepageds_files_are_its_own(thp):
    knobs.khugepaged("max_ptes_none", 3)
    assert (thp / "khugepaged/max_ptes_none").read_text() == "3\n"
    with pytest.raises((OSError, SysError)):
        knobs.khugepaged("no/such", 1)
