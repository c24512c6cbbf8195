"""Lines as khugepaged's tracepoints print them, and what is made of them."""

from __future__ import annotations

from secondsight.live.read.tracefs import Event, parse_line
from secondsight.live.watch import Joiner

V61 = b"""\
      khugepaged-30      [000] ...1.    12.912525: mm_collapse_huge_page_isolate: scan_pfn=0xe614, none_or_zero=0, referenced=512, writable=1, status=succeeded
      khugepaged-30      [000] .....    12.915847: mm_collapse_huge_page: mm=00000000618a95bb, isolated=1, status=succeeded
      khugepaged-30      [000] .....    12.915983: mm_khugepaged_scan_pmd: mm=00000000618a95bb, scan_pfn=0xe614, writable=1, referenced=512, none_or_zero=0, status=succeeded, unmapped=0
"""  # noqa: E501 - as printed
V72 = b"""\
      khugepaged-34      [001] ...1.    21.500000: mm_collapse_huge_page_isolate: scan_pfn=0x1200, none_or_zero=0, referenced=0, status=lack_referenced_page, order=9
      khugepaged-34      [001] .....    21.500100: mm_collapse_huge_page: mm=00000000aa00aa00, isolated=0, status=lack_referenced_page, order=9
      khugepaged-34      [001] .....    21.500200: mm_khugepaged_scan_pmd: mm=00000000aa00aa00, scan_pfn=0x1200, referenced=512, none_or_zero=0, status=lack_referenced_page, unmapped=0
      khugepaged-34      [001] .....    21.500300: mm_khugepaged_scan_pmd: mm=00000000aa00aa00, scan_pfn=0x1400, referenced=0, none_or_zero=0, status=lack_referenced_page, unmapped=0
      khugepaged-34      [001] .....    21.500400: mm_khugepaged_scan_pmd: mm=00000000bb00bb00, scan_pfn=0xffffffffffffffff, referenced=0, none_or_zero=0, status=no_pte_table, unmapped=0
"""  # noqa: E501 - as printed
FILES = b"""\
      khugepaged-34      [001] .....    21.600000: mm_khugepaged_collapse_file: mm=00000000aa00aa00, hpfn=0x1400, index=512, addr=300000200000, is_shmem=1, filename=ram, nr=512, result=succeeded
      khugepaged-34      [001] .....    21.600100: mm_khugepaged_scan_file: mm=00000000aa00aa00, scan_pfn=0x1200, filename=ram, present=512, swap=0, result=succeeded
      khugepaged-34      [001] .....    21.600200: mm_khugepaged_scan_file: mm=00000000aa00aa00, scan_pfn=0xffffffffffffffff, filename=a, mm=1, result=\x1b[31m, present=7, swap=3, result=exceed_none_pte
"""  # noqa: E501 - as printed


def decisions(text):
    """(decision, frame) of each pass in *text*."""
    joiner = Joiner()
    events = [parse_line(line) for line in text.splitlines()]
    assert all(isinstance(event, Event) for event in events)
    return [closed for event in events if (closed := joiner.add(event))]
