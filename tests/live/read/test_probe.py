"""What a kernel shows of itself: the scan's tracepoint, and what may not be looked at by name."""

import pytest

from secondsight.live.read.probe import Facts, facts, probe, scan_format

FORMAT = """name: mm_khugepaged_scan_pmd
ID: 600
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:struct mm_struct * mm;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned long pfn;\toffset:16;\tsize:8;\tsigned:0;
\tfield:bool writable;\toffset:24;\tsize:1;\tsigned:0;
\tfield:int status;\toffset:28;\tsize:4;\tsigned:1;

print fmt: "mm=%p, status=%s", REC->mm, __print_symbolic(REC->status, { 0, "failed" }, { 1, "succeeded" }, { 2, "no_pte_table" })
"""


def tracing(folder, text=FORMAT):
    path = folder / "events/huge_memory/mm_khugepaged_scan_pmd"
    path.mkdir(parents=True)
    (path / "format").write_text(text)
    return folder


def test_the_tracepoints_fields_and_statuses(tmp_path):
    fields, statuses = scan_format(tracing(tmp_path))
    assert fields == ("mm", "pfn", "writable", "status"), "common ones left out"
    assert statuses == ("failed", "succeeded", "no_pte_table")


def test_what_may_not_be_looked_at_is_none_and_named(tmp_path):
    seen = probe(tmp_path / "no tracing", tmp_path / "no types", tmp_path / "no symbols")
    assert set(seen.missing) == {"tracepoints", "BTF", "symbols"}
    assert all(seen.missing.values())
    for name in (
        "trace_fields",
        "trace_statuses",
        "large_mapcount",
        "lru_batch",
        "page_young",
        "change_pte",
        "soft_accessed",
    ):
        assert getattr(seen, name) is None, name
    assert seen.release


@pytest.mark.parametrize(
    ("symbols", "soft"),
    [
        ("ffffffff81000000 T kvm_mmu_notifier_test_young\\nffffffff82000000 D init_mm\\nffffffff82000008 d kvm_ad_enabled\\n", True),
        ("ffffffff81000000 T kvm_mmu_notifier_test_young\\nffffffff82000000 D init_mm\\n", False),
        # Without data symbols its absence says nothing.
        ("ffffffff81000000 T kvm_mmu_notifier_test_young\\n", None),
        ("ffffffff82000000 D init_mm\\n", None),
    ],
)  # fmt: skip
def test_the_software_accessed_bit_is_told_by_a_variable_of_kvm(tmp_path, symbols, soft):
    path = tmp_path / "kallsyms"
    path.write_text(symbols.encode().decode("unicode_escape"))
    seen = probe(tracing(tmp_path), tmp_path / "no types", path)
    assert seen.soft_accessed is soft and "symbols" not in seen.missing and "tracepoints" not in seen.missing
    assert probe(tracing(tmp_path / "again"), tmp_path / "no types", None).soft_accessed is None, "not asked"


def test_facts_are_made_by_name():
    assert facts(release="x", lru_batch=15, trace_fields=["mm"]) == Facts(
        release="x", lru_batch=15, trace_fields=("mm",)
    )
