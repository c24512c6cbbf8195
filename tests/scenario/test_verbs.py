"""The vocabulary: each verb by its name in files, with what it leaves out as the kernel has it, and nothing that it does not know."""

import re
import typing

import msgspec
import pytest

from secondsight.scenario import verbs

ALL = typing.get_args(verbs.Verb)


def test_a_verb_has_one_name_and_it_is_the_classes():
    names = [each.__struct_config__.tag for each in ALL]
    assert len(set(names)) == len(names) == len(ALL)
    for each, name in zip(ALL, names, strict=True):
        words = re.sub(r"(?<!^)([A-Z])", r"_\1", each.__name__.removeprefix("Set")).lower()
        assert name == words


def test_what_is_written_reads_the_same_and_defaults_are_left_out():
    for step in (
        verbs.CpuWrite("vm", "0", 7),
        verbs.Scan(2),
        verbs.Pin("vm", "0:1", "p", write=True),
        verbs.Drain(),
    ):
        text = msgspec.json.encode(step)
        assert msgspec.json.decode(text, type=verbs.Verb) == step
    assert msgspec.json.decode(msgspec.json.encode(verbs.GuestRead("vm", "0"))) == {
        "do": "guest_read",
        "space": "vm",
        "pages": "0",
    }
    assert msgspec.json.decode(msgspec.json.encode(verbs.Scan())) == {"do": "scan"}


@pytest.mark.parametrize(
    "text",
    [
        b'{"do": "cpu_read", "space": "vm", "pages": "0", "value": 1}',
        b'{"do": "cpu_raed", "space": "vm", "pages": "0"}',
        b'{"do": "cpu_read", "space": "vm"}',
        b'{"do": "madvise", "space": "vm", "pages": "0", "advice": "hugepages"}',
        b'{"space": "vm", "pages": "0"}',
    ],
)
def test_what_no_verb_knows_is_refused(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=verbs.Verb)


def _space(name, memory, block, blocks, **shared):
    return verbs.SpaceSpec(name, blocks, shared=verbs.Shared(memory, block, **shared))


def test_memory_is_as_long_as_its_farthest_mapping():
    spaces = (
        _space("a", "ram", 0, 2),
        _space("b", "ram", 3, 1),
        _space("c", "other", 9, 1),
        _space("d", "", 2, 2),
        verbs.SpaceSpec("e"),
    )
    scenario = verbs.Scenario(spaces, ())
    # Without a name nobody else can map it; private memory is none.
    assert [verbs.memory_blocks(scenario, space) for space in spaces] == [4, 4, 10, 4, 0]
