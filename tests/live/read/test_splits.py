"""Who splits huge pages: lines of the function tracer, counted."""

import pytest

from secondsight.errors import MissingDependency
from secondsight.live.read.splits import Splits, Splitter, occasion


def test_lines_are_counted_by_task_kind_and_caller(tmp_path):
    splits = Splits(tmp_path, -1)
    for line in (
        b"    redis-server-812     [001] .....    73.125001: __split_huge_pmd <-zap_pmd_range.isra.0",
        b"    redis-server-812     [000] d..2.    73.125002: __split_huge_pmd <-zap_pmd_range.isra.0",
        b"   a - b [0] x: y-13     [001] .....    73.125003: split_huge_page_to_list_to_order <-deferred_split_scan",
        b"   name\x1b[31m\xff-14    [001] .....    73.2: __split_huge_pmd <-nobody_knows",
        b"   bash-15    [001] .....    73.2: schedule <-do_nanosleep",
        b"CPU:1 [LOST 7 EVENTS]",
        b"# tracer: function",
        b"",
    ):
        splits.take(line)
    assert splits.lost == 7
    assert splits.splitters()[0] == Splitter(
        "redis-server", 812, "mapping", "zap_pmd_range", occasion("zap_pmd_range"), 2
    )
    assert {(each.task, each.kind, each.caller, bool(each.occasion)) for each in splits.splitters()[1:]} == {
        ("a - b [0] x: y", "page", "deferred_split_scan", True),
        ("name\x1b[31m\ufffd", "mapping", "nobody_knows", False),
    }


def test_a_kernel_without_it_says_so(tmp_path):
    (tmp_path / "instances").mkdir()
    with pytest.raises(MissingDependency, match="who splits huge pages"):
        Splits.open(tmp_path)
