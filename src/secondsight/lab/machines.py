"""The machines there are, by name. Another one is one more line here."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from secondsight.errors import UsageError
from secondsight.lab import bochs, qemu
from secondsight.lab.machine import Machine
from secondsight.scenario.verbs import Scenario


def machines() -> dict[str, Machine]:
    """Every machine by name, in the order in which they are listed to people."""
    return {machine.name: machine for machine in [*qemu.MACHINES, *bochs.MACHINES]}


def machine(name: str) -> Machine:
    """The machine called *name*.

    :raises UsageError: a name that there is not.
    """
    known = machines()
    if name not in known:
        raise UsageError(f"no machine is called {name!r}; known are {', '.join(known)}")
    return known[name]


def on_machine(scenarios: Iterable[Scenario], name: str) -> list[Scenario]:
    """*scenarios* as the machine called *name* is asked them: with its MMU.

    :raises UsageError: a name that there is not.
    """
    mmu = machine(name).mmu
    return [msgspec.structs.replace(s, host=msgspec.structs.replace(s.host, mmu=mmu)) for s in scenarios]
