"""Scenario files: TOML or JSON of ``verbs.Scenario``, read strictly.

Whatever is wrong is told with the file and the place in it (``$.steps[2].pages``); spaces, slots and pages are checked against each
other before anything runs.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from secondsight import atomicfile
from secondsight.errors import InputError, UsageError
from secondsight.mm.config import Sizes
from secondsight.scenario import pages, verbs
from secondsight.wholefile import read_whole

__all__ = ["check", "read", "write"]

_LIMIT = 8 << 20
#: of one space: 8 GiB
_MOST_BLOCKS = 4096
#: Windows of a guest, and guests of its own.
_MOST_TABLES = 16


def read(path: str | Path) -> verbs.Scenario:
    """The scenario in *path* (``.toml`` or ``.json``), checked.

    :raises InputError: unreadable, malformed, or a step that names what does not exist.
    """
    path = Path(path)
    return decode(read_whole(path, _LIMIT, "a scenario file"), str(path), toml=path.suffix != ".json")


def decode(text: bytes, source: str, *, toml: bool) -> verbs.Scenario:
    """The scenario in *text*; *source* names it in errors.

    :raises InputError: malformed, a host that cannot be, or a step that names what does not exist.
    """
    decoder = msgspec.toml.decode if toml else msgspec.json.decode
    try:
        scenario = decoder(text, type=verbs.Scenario)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at ")
        if where.strip("`").endswith(".sizes") and "unknown field" in message:
            message += f"; the sizes are {', '.join(Sizes.__struct_encode_fields__)}"
        raise InputError(source, where.strip("`"), message) from None
    except UsageError as error:
        raise InputError(source, "host", str(error)) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError(source, "", f"not {'TOML' if toml else 'JSON'}: {error}") from None
    check(scenario, source)
    return scenario


def check(scenario: verbs.Scenario, source: str = "scenario") -> None:
    """Refuse names, slots and pages that do not exist at the step that uses them.

    :raises InputError: says which step.
    """
    blocks: dict[str, int] = {}
    slots: dict[tuple[str, int], set[int]] = {}
    for i, space in enumerate(scenario.spaces):
        where = f"spaces[{i}]"
        if space.name in blocks:
            raise InputError(source, where, f"there are two spaces called {space.name!r}")
        if not 1 <= space.blocks <= _MOST_BLOCKS:
            raise InputError(source, where, f"blocks={space.blocks}: must be 1 to {_MOST_BLOCKS}")
        blocks[space.name] = space.blocks
        if space.shared is not None and not 0 <= space.shared.block <= _MOST_BLOCKS:
            raise InputError(source, where, f"shared.block={space.shared.block}: must be 0 to {_MOST_BLOCKS}")
        if space.shared is not None and space.droppable:
            raise InputError(
                source, where, f"space {space.name!r} is shared and droppable: a mapping is one of them"
            )
        if space.vm2 is not None and space.vm is None:
            raise InputError(
                source, where, f"space {space.name!r} has a second VM (vm2) and no first: give it vm = {{}}"
            )
        for number, vm in enumerate((space.vm, space.vm2)):
            if vm is not None:
                known = slots[space.name, number] = {0}
                taken = [(0, space.blocks)]
                for slot in vm.slots:
                    _check_slot(slot, space.blocks, known, taken, source, where)
    for i, step in enumerate(scenario.steps):
        _check_step(step, blocks, slots, source, f"steps[{i}]")
    scans = [i for i, step in enumerate(scenario.steps) if isinstance(step, verbs.Scan)]
    partial = next((i for i in scans if getattr(scenario.steps[i], "pages", None) is not None), None)
    if partial is not None and (len(scans) > 1 or partial + 1 < len(scenario.steps)):
        raise InputError(
            source,
            f"steps[{partial}]",
            "a scan of so many pages leaves the list unfinished: make it the last step, and the only scan",
        )


def _check_slot(
    slot: verbs.Slot, blocks: int, known: set[int], taken: list[tuple[int, int]], source: str, where: str
) -> None:
    if slot.id in known:
        raise InputError(source, where, f"memslot {slot.id} exists already (0 maps the whole space)")
    if slot.block < 0 or slot.blocks < 1 or slot.block + slot.blocks > blocks or slot.gfn_block < 0:
        raise InputError(source, where, f"memslot {slot.id} does not lie in the space of {blocks} blocks")
    for first, count in taken:
        if slot.gfn_block < first + count and first < slot.gfn_block + slot.blocks:
            raise InputError(
                source,
                where,
                f"memslot {slot.id} overlaps guest blocks {first} to {first + count - 1} of another",
            )
    known.add(slot.id)
    taken.append((slot.gfn_block, slot.blocks))


def _check_step(
    step: verbs.Verb, blocks: dict[str, int], slots: dict[tuple[str, int], set[int]], source: str, where: str
) -> None:
    name = getattr(step, "space", None)
    if name is not None and name not in blocks:
        raise InputError(
            source, where, f"there is no space called {name!r} here; spaces: {', '.join(blocks) or 'none'}"
        )
    for field in ("pages", "took"):
        text = getattr(step, field, None)
        if isinstance(text, str) and name is not None and (text or field == "pages"):
            try:
                pages.parse(text, blocks[name])
            except UsageError as error:
                raise InputError(source, f"{where}.{field}", str(error)) from None
    match step:
        case verbs.GuestRead() | verbs.GuestWrite():
            if step.slot not in _slots_of(step, slots, source, where):
                raise InputError(source, where, f"space {step.space!r} has no memslot {step.slot} here")
            for field in ("view", "nested"):
                if not 0 <= getattr(step, field) <= _MOST_TABLES:
                    raise InputError(
                        source, f"{where}.{field}", f"{getattr(step, field)}: must be 0 to {_MOST_TABLES}"
                    )
            if step.nested and step.view:
                raise InputError(source, where, "a nested guest's paging is off: leave out view")
        case verbs.Fork():
            if step.child in blocks:
                raise InputError(source, where, f"there is a space called {step.child!r} already")
            blocks[step.child] = blocks[step.space]
        case verbs.Exit():
            del blocks[step.space]
            for number in (0, 1):
                slots.pop((step.space, number), None)
        case verbs.SlotAdd():
            known = _slots_of(step, slots, source, where)
            _check_slot(step.slot, blocks[step.space], known, [], source, where)
        case verbs.SlotDelete():
            if step.id not in slots.get((step.space, step.vm), set()):
                raise InputError(source, where, f"space {step.space!r} has no memslot {step.id} here")
            slots[step.space, step.vm].discard(step.id)
        case verbs.Scan():
            if not 1 <= step.passes <= 1000:
                raise InputError(source, where, f"passes={step.passes}: must be 1 to 1000")
            if step.pages is not None and (step.passes != 1 or not 1 <= step.pages < 1 << 32):
                raise InputError(
                    source, where, f"pages={step.pages}: one wake-up good for 1 to 4294967295 pages"
                )
        case _:
            pass


def _slots_of(
    step: verbs.GuestRead | verbs.GuestWrite | verbs.SlotAdd, slots: dict[tuple[str, int], set[int]], source: str, where: str
) -> set[int]:  # fmt: skip
    """The memslots of the VM that *step* names."""
    if (step.space, step.vm) not in slots:
        mend = (
            f"no VM; give it {'vm' if step.vm == 0 else 'vm2'} = {{}}"
            if step.vm in (0, 1)
            else f"no VM {step.vm}; 0 or 1"
        )
        raise InputError(source, where, f"space {step.space!r} has {mend}")
    return slots[step.space, step.vm]


def write(scenario: verbs.Scenario, path: str | Path) -> None:
    """Write *scenario* as TOML (or JSON by suffix), whole or not at all.

    :raises UsageError: *path* cannot be written.
    """
    path = Path(path)
    encode = msgspec.json.encode if path.suffix == ".json" else msgspec.toml.encode
    with atomicfile.open_atomic(path) as part:
        part.write_bytes(encode(scenario))
