"""What khugepaged's trace says of which block, on text as the kernels print it."""
# ruff: noqa: E501

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.lab.agent.events import TracedSpace, TraceError, attribute, parse
from secondsight.scenario.results import BlockPass, IsolateEvent, SwapinEvent

BASE, MM = 0x2000_0000_0000, 0xFFFF_8880_0412_3400

# 6.1: `writable` in the scan and in isolate.
V61 = """# tracer: nop
#
      khugepaged-35      [000] .....    21.000001: ss_scan: (mm_find_pmd+0x0/0x120) mm=0xffff888004123400 addr=0x200000000000
      khugepaged-35      [000] .....    21.000002: mm_khugepaged_scan_pmd: mm=ffff888004123400, scan_pfn=0x1200, writable=1, referenced=0, none_or_zero=3, status=lack_referenced_page, unmapped=0
      khugepaged-35      [000] d..1.    21.000003: ss_scan: (mm_find_pmd+0x0/0x120) mm=0xffff888004123400 addr=0x200000200000
      khugepaged-35      [000] d..1.    21.000003: ss_scan: (mm_find_pmd+0x0/0x120) mm=0xffff888004123400 addr=0x200000200000
      khugepaged-35      [000] .....    21.000004: mm_collapse_huge_page_swapin: mm=ffff888004123400, swapped_in=2, referenced=400, ret=1
      khugepaged-35      [000] .....    21.000005: mm_collapse_huge_page_isolate: scan_pfn=0x1400, none_or_zero=0, referenced=402, writable=1, status=succeeded
      khugepaged-35      [000] .....    21.000006: mm_collapse_huge_page: mm=ffff888004123400, isolated=1, status=succeeded
      khugepaged-35      [000] .....    21.000007: mm_khugepaged_scan_pmd: mm=ffff888004123400, scan_pfn=0x15ff, writable=1, referenced=400, none_or_zero=0, status=succeeded, unmapped=2
"""
# 7.x: no `writable`, an order at the end.
V72 = """
      khugepaged-41      [000] .....     9.500001: ss_scan: (mm_find_pmd+0x4/0x120) mm=0xffff888004123400 addr=0x200000200000
      khugepaged-41      [000] .....     9.500002: mm_collapse_huge_page_isolate: scan_pfn=0x1400, none_or_zero=0, referenced=0, status=lack_referenced_page, order=9
      khugepaged-41      [000] .....     9.500003: mm_collapse_huge_page: mm=ffff888004123400, isolated=0, status=lack_referenced_page, order=9
      khugepaged-41      [000] .....     9.500004: mm_khugepaged_scan_pmd: mm=ffff888004123400, scan_pfn=0x1400, referenced=512, none_or_zero=0, status=lack_referenced_page, unmapped=0
"""


def areas() -> dict[int, TracedSpace]:
    frames = np.zeros(1024, np.uint64)
    frames[0:509] = np.arange(0x1200, 0x1200 + 509)
    frames[512:1022] = np.arange(0x1400, 0x1400 + 510)
    return {MM: TracedSpace("vm", BASE, 2, frames)}


def test_a_pass_on_6_1() -> None:
    assert attribute(parse(V61), areas(), 1) == [
        BlockPass(1, "vm", 0, "lack_referenced_page", 0, 3, 0, writable=1),
        BlockPass(
            1, "vm", 1, "succeeded", 400, 0, 2, writable=1,
            swapin=SwapinEvent(2, 400, 1), isolate=IsolateEvent("succeeded", 402, 0, 1), collapse="succeeded",
        ),
    ]  # fmt: skip


def test_pointers_that_are_hashed_stand_for_one_mm() -> None:
    text = V61.replace("mm=ffff888004123400", "mm=00000000deadbeef")
    assert attribute(parse(text), areas(), 3) == attribute(parse(V61), areas(), 3)
    other = text.replace("mm=0xffff888004123400", "mm=0xffff888004123800", 1)
    with pytest.raises(TraceError, match="ends as one to 00000000deadbeef"):
        attribute(parse(other), areas(), 3)


def test_a_refusal_on_7_2() -> None:
    assert attribute(parse(V72), areas(), 4) == [
        BlockPass(
            4, "vm", 1, "lack_referenced_page", 512, 0, 0,
            isolate=IsolateEvent("lack_referenced_page", 0, 0), collapse="lack_referenced_page",
        )
    ]  # fmt: skip


def test_a_huge_block_names_no_page() -> None:
    text = V72.splitlines()[1] + "\n" + V72.splitlines()[4].replace("0x1400", "0xffffffffffffffff")
    assert attribute(parse(text), areas(), 1)[0].block == 1


def test_other_processes_and_other_tasks_are_left_out() -> None:
    assert attribute(parse(V61), {}, 1) == []
    assert attribute(parse(V61.replace("khugepaged-35", "python3-7")), areas(), 1) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (V61.replace("scan_pfn=0x1200", "scan_pfn=0x1400"), "names a page of blocks"),
        ("\n".join(V61.splitlines()[:3]), "has no end"),
        ("\n".join(V61.splitlines()[3:]), "has not begun"),
        (
            V61.replace("0xffff888004123400 addr=0x200000000000", "0xffff888004123000 addr=0x200000000000"),
            "ends as one",
        ),
        (
            V61.replace("scan_pmd: mm=ffff888004123400, scan_pfn=0x1200", "nothing: mm=1, scan_pfn=0"),
            "no end",
        ),
        (V61 + V61, "visited after block"),
        (V61.replace("mm_collapse_huge_page: ", "mm_collapse_huge_page_isolate: "), "twice"),
        ("CPU:0 [LOST 7 EVENTS]\n" + V61, "lost"),
        ("not a trace", "not an event"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=complaint):
        attribute(parse(text), areas(), 1)


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(TraceError):
        attribute(parse(text), areas(), 1)
