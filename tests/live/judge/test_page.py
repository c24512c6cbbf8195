"""An explanation as one page: every block drawn and told, names escaped, nothing loaded from anywhere."""

import dataclasses
import re

import msgspec
import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.live.judge.explain import explain
from secondsight.live.judge.page import kind, render
from support.snapshots import BLOCK, columns, snapshot, with_vm


def test_the_page_tells_every_block_and_escapes_names():
    young = np.zeros((3, 512), bool)
    young[1] = True
    taken = snapshot(with_vm(columns(3), young))
    taken = dataclasses.replace(taken, header=msgspec.structs.replace(taken.header, name="<script>"))
    answer = explain(taken)
    page = render(answer)
    assert page.count("<rect ") == 3 and "<script" not in page and "&lt;script&gt;" in page
    assert [kind(b) for b in answer.blocks] == ["idle", "wasted", "idle"]
    assert "http" not in page and "src=" not in page


def test_a_printed_page_keeps_what_a_map_is_of_beside_its_squares():
    page = render(explain(snapshot(columns(2))))
    assert re.search(r"<div class=map><div><code>.*?</code>.*?</div><svg .*?</svg></div>", page, re.DOTALL)
    printed = page[page.index("@media print{") :]
    assert ".map>div{break-after:avoid}" in printed and ".map,tr{break-inside:avoid}" in printed


def test_the_page_draws_many_small_mappings_that_are_alike_as_one():
    taken = snapshot(columns(40))
    (whole,) = taken.header.mappings
    start, end = whole.start, whole.end
    ones = [
        msgspec.structs.replace(whole, start=start + i * BLOCK, end=start + (i + 1) * BLOCK)
        for i in range(20)
    ]
    other = msgspec.structs.replace(whole, start=start + 20 * BLOCK, end=end)
    header = msgspec.structs.replace(taken.header, mappings=(*ones, other))
    page = render(explain(dataclasses.replace(taken, header=header)))
    assert page.count("<rect ") == 40 and page.count("<svg ") == 2
    assert f"{start:012x}-{other.start:012x}" in page and "20 mappings alike, eligible" in page
    header = msgspec.structs.replace(
        taken.header, mappings=(*ones[:3], msgspec.structs.replace(other, start=ones[3].start))
    )
    page = render(explain(dataclasses.replace(taken, header=header)))
    assert page.count("<rect ") == 40 and page.count("<svg ") == 4 and "alike" not in page
    small = msgspec.structs.replace(other, start=start, end=start + BLOCK)
    large = msgspec.structs.replace(other, start=small.end, end=small.end + 30 * BLOCK)
    last = msgspec.structs.replace(other, start=large.end)
    header = msgspec.structs.replace(taken.header, mappings=(small, large, last))
    page = render(explain(dataclasses.replace(taken, header=header)))
    assert re.findall(r"<code>(\w+)-\w+ ", page) == [f"{m.start:012x}" for m in (small, large, last)]


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"mapping": "huge"}, "huge"),
        ({"mapping": "zero"}, "zero"),
        ({"status": "ineligible"}, "passed"),
        ({"status": "lack_referenced_page", "wasted": True}, "wasted"),
        ({"status": "succeeded"}, "will"),
        ({"status": "succeeded", "known": False}, "may"),
        ({"status": "lack_referenced_page", "others": ("succeeded",), "known": False}, "may"),
        ({"status": "lack_referenced_page"}, "idle"),
        ({"status": "exceed_none_pte"}, "limit"),
    ],
)
def test_a_colour_says_what_becomes_of_a_block(fields, key):
    (block,) = explain(snapshot(columns(1))).blocks
    plain = {"mapping": "table", "status": "exceed_none_pte", "known": True, "others": (), "wasted": False}
    assert kind(msgspec.structs.replace(block, **(plain | fields))) == key


def test_every_colour_of_a_map_is_in_the_legend_and_each_differs():
    page = render(explain(snapshot(columns(2))))
    legend = re.findall(r"background:(#\w+)></i>([^<]+)<", page)
    assert len({colour for colour, _ in legend}) == len(legend) == 8
    assert set(re.findall(r"fill='(#\w+)'", page)) <= {colour for colour, _ in legend}


def test_totals_facts_and_the_answers_by_their_number(monkeypatch):
    memory = columns(3)
    memory.pte[0] |= bits.ACCESSED
    answer = explain(snapshot(memory))
    page = render(answer)
    assert "<tr><td class=n>2<td><code>lack_referenced_page</code>" in page
    assert "<tr><td class=n>1<td><code>succeeded</code>" in page
    for part in (
        "of eligible memory is huge",
        "resident in 3 blocks",
        "1</div>block will collapse, adding 0.0 MiB",
        *answer.channels,
    ):
        assert part in page, part
    assert page.count("<rect ") == 3 and page.startswith("<!doctype html>") and page.endswith("</html>")
