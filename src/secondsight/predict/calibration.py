"""A calibration: the model of a machine with the machine's identity, as a file.

~/.local/share/secondsight/calibration.json   made here by ``secondsight calibrate``
data/default.json                             shipped; says whose it is, and is used only on the same CPU, or when it is named
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from secondsight import atomicfile
from secondsight.errors import InputError, UsageError
from secondsight.predict.machine import Hardware, changed, differs, this_machine
from secondsight.predict.model import Measurement, Model
from secondsight.predict.prices import Prices
from secondsight.wholefile import read_whole

_LIMIT = 1 << 20  # bytes

#: Changed whenever a reader of the older one could misread the newer.
SCHEMA: Final = 1


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one machine's walks, faults and collapses cost. *tlb*: the reference TLB whose walks are priced; cells: what was measured."""

    schema: int = SCHEMA
    tool: str
    made: str  # the day, UTC
    machine: Hardware
    pmu: bool  # whether hardware counters were there to be read
    tlb: Mapping[str, int | bool]
    seconds: float  # that the calibration took
    model: Model
    prices: Prices
    cells: list[Measurement]
    notes: list[str] = []


def encode(calibration: Calibration) -> bytes:
    """*calibration* as JSON, the same bytes for the same calibration."""
    return msgspec.json.format(msgspec.json.encode(calibration, order="deterministic"), indent=1) + b"\n"


def decode(raw: bytes, source: str) -> Calibration:
    """Read what :func:`encode` wrote.

    :raises InputError: *raw* is no calibration, or of another schema version.
    """
    try:
        head = msgspec.json.decode(raw)
        version = head.get("schema") if isinstance(head, dict) else None
        if version != SCHEMA:
            raise InputError(
                source, "schema", f"a calibration of schema version {version!r}; this reads version {SCHEMA}"
            )
        return msgspec.json.decode(raw, type=Calibration)
    except msgspec.MsgspecError as error:
        raise InputError(
            source, "", f"not a calibration: {error}; `secondsight calibrate` makes one"
        ) from None


def own_path() -> Path:
    """Where this user's calibration lies."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111 - Path.home raises where there is none
    return Path(base) / "secondsight" / "calibration.json"


def save(calibration: Calibration, path: Path) -> None:
    """Write it to *path*, whole or not at all.

    :raises UsageError: it cannot be written.
    """
    with atomicfile.open_atomic(path) as part:
        part.write_bytes(encode(calibration))


def read(path: Path) -> Calibration:
    """The calibration *path*.

    :raises InputError: it cannot be read, or is none.
    """
    return decode(read_whole(path, _LIMIT, "what `calibrate` has kept"), str(path))


def shipped() -> Calibration:
    """The one that comes with the package.

    :raises UsageError: this installation has none, as a guest of the lab.
    """
    where = resources.files("secondsight.predict").joinpath("data", "default.json")
    try:
        raw = where.read_bytes()
    except OSError:
        raise UsageError(
            "no calibration comes with this installation; `secondsight calibrate` measures this machine"
        ) from None
    return decode(raw, "the shipped calibration")


def find(named: Path | None, here: Hardware | None = None) -> tuple[Calibration, list[str]]:
    """The calibration to use, and what must be said of it: *named*, else this user's, else the shipped one if it fits *here*.

    :raises UsageError: there is none for this machine.
    :raises InputError: a file that is none.
    """
    machine = here or this_machine()
    if named is not None:
        calibration = read(named)
        return calibration, [
            f"calibration {named} is of {calibration.machine.title}: {each}"
            for each in differs(calibration.machine, machine)
        ]
    own = own_path()
    # A service may see nobody's home.
    if os.path.exists(own):  # noqa: PTH110 - Path.exists raises where a directory may not be searched
        calibration = read(own)
        if not (foreign := differs(calibration.machine, machine)):
            return calibration, [f"{own}: {each}" for each in changed(calibration.machine, machine)]
        reason = f"{own} is another machine's ({'; '.join(foreign)})"
    else:
        calibration = shipped()
        if not (foreign := differs(calibration.machine, machine)):
            return calibration, [
                f"the shipped calibration: {each}" for each in changed(calibration.machine, machine)
            ]
        reason = f"the shipped calibration is another machine's ({'; '.join(foreign)})"
    raise UsageError(
        f"{reason}; `secondsight calibrate` measures this one, --calibration FILE takes another's knowingly"
    )
