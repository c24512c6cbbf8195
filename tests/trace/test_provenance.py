"""Where a trace comes from: read back as it was, and refused where it cannot be."""

import msgspec
import pytest

from secondsight.errors import InputError
from secondsight.trace import Provenance, Space
from secondsight.trace.provenance import contradiction, decode, encode, with_fields
from support.random_traces import PROVENANCE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantum": -1}, "quantum"),
        ({"quantum": 1 << 70}, "quantum"),
        ({"clock_held": -4}, "clock_held"),
        ({"dropped": {"x": -1}}, "dropped"),
        ({"page_size": 0}, "pages of 0 bytes; those of x86_64 have 4096"),
        ({"page_size": 65536}, "pages of 65536 bytes; those of x86_64 have 4096"),
        ({"page_size": 5000, "arch": "aarch64"}, "pages of 5000 bytes; a page has"),
        ({"spaces": [{"id": 0, "name": "a", "parent": 0}]}, "space 0 is its own parent"),
        ({"spaces": [{"id": 0, "name": "a", "parent": 1}, {"id": 1, "name": "b", "parent": 0}]}, "space 0 is its own"),
        ({"spaces": [{"id": 0, "name": "a", "parent": 3}]}, "space 3, a parent of space 0, is not among the 1 spaces"),
    ],
)  # fmt: skip
def test_provenance_that_cannot_be_is_refused(change, said):
    raw = msgspec.to_builtins(PROVENANCE) | {"arch": "x86_64"}
    assert decode(msgspec.json.encode(raw), "t").spaces == PROVENANCE.spaces
    with pytest.raises(InputError, match=r"^t: metadata: .*") as raised:
        decode(msgspec.json.encode(raw | change), "t")
    assert said in str(raised.value)


def test_parents_among_the_spaces_and_pages_of_another_machine_are_read():
    spaces = [Space(id=0, name="a"), Space(id=1, name="b", parent=2), Space(id=2, name="c", parent=0)]
    raw = msgspec.to_builtins(PROVENANCE) | {
        "spaces": msgspec.to_builtins(spaces),
        "arch": "aarch64",
        "page_size": 65536,
    }
    assert decode(msgspec.json.encode(raw), "t").spaces == spaces


def test_what_is_none_of_ours_or_of_a_later_version_is_one_line():
    for raw, said in (
        (None, "no secondsight.trace key: not a trace; `secondsight convert` makes one"),
        (b'{"version": 2, "source": "x"}', "format version 2, and this is a reader of version 1"),
        (b'{"source": "x"}', "format version None"),
        (b"[]", "provenance is not readable"),
        (b"\xff", "provenance is not readable"),
        (b'{"version": 1}', "provenance is not readable"),
    ):
        with pytest.raises(InputError) as raised:
            decode(raw, "t.parquet")
        assert str(raised.value).startswith("t.parquet: metadata: ") and said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_it_comes_back_as_it_was_and_names_no_machine():
    made = Provenance(
        source="x", spaces=PROVENANCE.spaces, unseen=["DMA"], dropped={"why": 3}, notes=["n"], seed=7
    )
    assert decode(encode(made), "t") == made
    assert "hostname" not in msgspec.to_builtins(made)


def test_spaces_are_numbered_from_0_in_order():
    for numbers in ([1], [0, 2], [1, 0], [0, 0]):
        made = Provenance(source="x", spaces=[Space(id=number, name="s") for number in numbers])
        assert contradiction(made) == "spaces must be numbered 0, 1, 2 … in order"
    assert contradiction(Provenance(source="x")) == ""


def test_a_copy_with_fields_replaced_leaves_the_other():
    made = Provenance(source="x")
    assert with_fields(made, quantum=5).quantum == 5 and made.quantum == 0
