"""What khugepaged's trace says of shared memory, on text as the kernels print it."""
# ruff: noqa: E501

from __future__ import annotations

import numpy as np
import pytest

from secondsight.lab.agent.events import TracedSpace, TraceError, attribute, parse
from secondsight.lab.agent.file_events import attribute_files, probe
from secondsight.scenario.results import CollapseFileEvent, FilePass

BASE, MM = 0x2000_0000_0000, 0xFFFF_8880_0412_3400
V612 = """
      khugepaged-35      [000] .....    21.000001: ss_file: (hpage_collapse_scan_file+0x0/0x290) mm=0xffff888004123400 addr=0x200000000000
      khugepaged-35      [000] .....    21.000002: ss_scan: (mm_find_pmd+0x0/0x120) mm=0xffff888004123400 addr=0x200000000000
      khugepaged-35      [000] .....    21.000003: mm_khugepaged_collapse_file: mm=ffff888004123400, hpage_pfn=0x9e00, index=1024, addr=200000000000, is_shmem=1, filename=memfd:0.ram, nr=512, result=succeeded
      khugepaged-35      [000] .....    21.000004: mm_khugepaged_scan_file: mm=ffff888004123400, scan_pfn=0xffffffffffffffff, filename=memfd:0.ram, present=101, swap=3, result=succeeded
      khugepaged-35      [000] .....    21.000005: ss_file: (hpage_collapse_scan_file+0x0/0x290) mm=0xffff888004123400 addr=0x200000200000
      khugepaged-35      [000] .....    21.000006: mm_khugepaged_scan_file: mm=ffff888004123400, scan_pfn=0x1400, filename=memfd:0.ram, present=7, swap=0, result=not_suitable_page_count
      khugepaged-35      [000] .....    21.000007: ss_scan: (mm_find_pmd+0x0/0x120) mm=0xffff888004123400 addr=0x200000200000
"""


def areas() -> dict[int, TracedSpace]:
    return {MM: TracedSpace("vm", BASE, 2, np.zeros(1024, np.uint64), "memfd:0.ram")}


def test_a_pass() -> None:
    events = parse(V612)
    assert attribute_files(events, areas(), 2) == [
        FilePass(2, "vm", 0, "memfd:0.ram", "succeeded", 101, 3, collapse=CollapseFileEvent("succeeded", 1024, 512, 1)),
        FilePass(2, "vm", 1, "memfd:0.ram", "not_suitable_page_count", 7, 0, names_page=True),
    ]  # fmt: skip
    assert attribute(events, areas(), 2) == [], "its page tables are looked for outside any visit"


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(TraceError, match="names"):
        attribute_files(
            parse(V612.replace("filename=memfd:0.ram, present=7", "filename=memfd:1.ram, present=7")),
            areas(),
            1,
        )
    with pytest.raises(TraceError, match="has not begun"):
        attribute_files(parse(V612.splitlines()[4]), areas(), 1)
    with pytest.raises(TraceError, match="outside a visit"):
        attribute_files(parse(V612.replace("addr=200000000000,", "addr=200000200000,")), areas(), 1)
    assert attribute_files(parse(V612), {}, 1) == [], "another process's"


def test_the_probe_is_where_the_kernel_has_the_scan(tmp_path) -> None:
    table = tmp_path / "kallsyms"
    table.write_text("0 t hpage_collapse_scan_pmd\n0 t hpage_collapse_scan_file\n")
    assert probe(table) == "p:secondsight/ss_file hpage_collapse_scan_file mm=%di addr=%si"
    table.write_text("0 t collapse_single_pmd.cold\n0 t collapse_single_pmd\n")
    assert probe(table) == "p:secondsight/ss_file collapse_single_pmd mm=+16(%si) addr=%di"
    table.write_text("0 t schedule\n")
    assert probe(table) is None
