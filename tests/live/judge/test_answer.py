"""What ``explain --json`` prints: a block leaves out what it has nothing to say of, and sums are over orders."""

import msgspec

from secondsight.live.judge.answer import SCHEMA, AttemptsAhead, Block, Explanation, Totals
from secondsight.live.judge.explain import explain
from support.snapshots import columns, snapshot

PLAIN = {
    "address": 1 << 21, "mapping": "small", "populated": 3, "swapped": 0, "shared": 0, "pinned": None, "primary": None,
    "referenced": 0, "secondary": 0, "status": "exceed_none_pte", "known": True, "reason": "r",
}  # fmt: skip


def test_a_block_says_unknown_and_leaves_out_what_is_as_usual():
    block = Block(**PLAIN)
    assert msgspec.to_builtins(block) == PLAIN
    more = msgspec.structs.replace(block, wasted=True, others=("succeeded",), guest=0)
    assert msgspec.to_builtins(more).keys() - PLAIN.keys() == {"wasted", "others", "guest"}
    assert msgspec.json.decode(msgspec.json.encode(more), type=Block) == more


def test_refused_collapses_are_those_of_every_order():
    (totals,) = [explain(snapshot(columns(1))).totals]
    many = msgspec.structs.replace(totals, attempts=(AttemptsAhead(9, 3, 2), AttemptsAhead(4, 64, 60)))
    assert many.refused_collapses == 62 and msgspec.structs.replace(many, attempts=()).refused_collapses == 0


def test_the_whole_answer_comes_back_from_json_and_names_its_schema():
    answer = explain(snapshot(columns(2)))
    again = msgspec.json.decode(msgspec.json.encode(answer), type=Explanation)
    assert again == answer and again.schema == SCHEMA == 1
    assert isinstance(again.totals, Totals) and sum(again.totals.by_status.values()) == len(again.blocks) == 2
