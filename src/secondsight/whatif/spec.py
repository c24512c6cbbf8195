"""What a sweep is asked to run: a TOML file, read and written out as rows.

    traces x policies x rules x budgets x hosts x knobs ──▶ rows, each with an id of its own ──▶ cells of *together* rows of one trace

A row's id is the hash of everything its figures depend on (the trace's content, policy, rules, host, clock, this program's version): a
finished row is known again whatever else the file says, and a file that grew runs only what is new.
"""

from __future__ import annotations

import hashlib
import itertools
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from secondsight import __version__
from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.mm.config import HostConfig, Mmu
from secondsight.mm.profiles import profile
from secondsight.policy import describe, make
from secondsight.replay.clock import bound, scale_of
from secondsight.replay.configuration import HOST, Backing
from secondsight.trace import Trace
from secondsight.whatif.combine import Combination, Range, combinations, grid, parse_budget
from secondsight.wholefile import read_whole

_LIMIT = 1 << 20  # bytes

#: Changed whenever a reader of the older form could misread the newer.
VERSION = 1


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. Where a list stands for a single value, every value is run against all others.

    traces: paths or patterns, relative to the file; policies, rules: as ``compare`` takes them; knobs: khugepaged's sysfs files and
    the policies' options, each a number, a list, or a range ``"0..511:64"``; budget, mmu, mglru, time_scale, backing, empty, tlb: as
    ``compare``'s options; maps: keep what each channel said over time (large); together: rows that share one reading of their trace.
    """

    schema: int = VERSION
    traces: list[str]
    policies: list[str] = msgspec.field(default_factory=lambda: ["never", "khugepaged", "always", "oracle"])
    rules: list[str] = msgspec.field(default_factory=lambda: ["7.2"])
    knobs: dict[str, float | str | list[float]] = {}
    budget: int | str | list[int | str] | None = None
    mmu: Mmu | list[Mmu] = "npt"
    mglru: bool | list[bool] = False
    time_scale: float | list[float] = 1.0
    backing: Backing = "trace"
    empty: bool = False
    tlb: bool = False
    maps: bool = False
    together: int = 4


class PlannedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row to be. *make*: the policy with what was varied; *policy*: its text without."""

    id: str
    make: str
    policy: str
    rules: str
    config: HostConfig
    budget: int | str | None
    knobs: dict[str, float | str]

    def combination(self) -> Combination:
        """What a comparison takes."""
        return Combination(
            lambda: make(self.make), self.policy, profile(self.rules), self.config, self.budget, self.knobs
        )


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker does at a time: rows of one trace, in one reading of it. *weight*: its expected cost, in no unit."""

    id: str
    trace: str
    path: str
    weight: float
    entries: list[PlannedRow]
    config: HostConfig
    time_scale: float
    backing: Backing
    empty: bool
    tlb: bool
    maps: bool
    version: str = __version__


def read(path: Path) -> Spec:
    """The spec in the file *path*.

    :raises InputError: unreadable, no TOML, an unknown key or a value of another type; the text names the place.
    """
    try:
        raw = tomllib.loads(read_whole(path, _LIMIT, "a sweep's spec").decode())
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise InputError(str(path), "", f"not TOML: {error}") from None
    if raw.get("schema", VERSION) != VERSION:
        raise InputError(str(path), "schema", f"version {raw['schema']!r}; this reads version {VERSION}")
    try:
        spec = msgspec.convert(raw, Spec)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$")
        raise InputError(str(path), where.strip("`.") or "top level", problem) from None
    if not 1 <= spec.together <= 1000:
        raise InputError(str(path), "together", f"{spec.together}: must be 1 to 1000")
    if not spec.traces:
        raise InputError(str(path), "traces", "an empty list: nothing would be run")
    return spec


def _values(given: Any) -> list[Any]:
    values = given if isinstance(given, list) else [given]
    if not values:
        raise UsageError("an empty list: nothing would be run; leave the key out")
    return list(dict.fromkeys(values))


def _ranges(spec: Spec) -> list[Range]:
    out = []
    for name, given in spec.knobs.items():
        if isinstance(given, str):
            out.append(Range.parse(f"{name}={given}", "knobs:"))
        else:
            out.append(Range(name, tuple(float(v) for v in _values(given))))
    return out


def _hosts(spec: Spec) -> Iterator[tuple[HostConfig, int | str | None, dict[str, float | str]]]:
    """Every host and budget, and what of it varies."""
    axes: dict[str, list[Any]] = {
        "mmu": _values(spec.mmu),
        "mglru": _values(spec.mglru),
        "budget": _values(spec.budget),
    }
    for mmu, mglru, budget in itertools.product(*axes.values()):
        parse_budget(budget, 0)
        axis_values = {"mmu": mmu, "mglru": str(mglru).lower(), "budget": str(budget)}
        config = msgspec.structs.replace(HOST, mmu=mmu, mglru=mglru)
        yield config, budget, {k: axis_values[k] for k, values in axes.items() if len(values) > 1}


def rows(spec: Spec) -> list[Combination]:
    """Every row of one trace on one clock, in the file's order.

    :raises UsageError: a policy, rules, knob or value that does not exist; nothing to run.
    """
    out: list[Combination] = []
    ranges = _ranges(spec)
    for config, budget, axis_values in _hosts(spec):
        chosen = combinations(spec.policies, spec.rules, config, budget)
        out.extend(grid([replace(c, knobs=axis_values) for c in chosen], ranges))
    return list({c.label: c for c in out}.values())


def find(spec: Spec, base: Path) -> dict[str, Path]:
    """The traces, by the name that results give them (as the file says, patterns spelled out), in order.

    :raises InputError: a pattern that matches nothing.
    """
    out: dict[str, Path] = {}
    for index, pattern in enumerate(spec.traces):
        given = Path(pattern)
        if any(c in pattern for c in "*?["):
            root = Path(given.anchor) if given.is_absolute() else base
            matched = sorted(root.glob(str(given.relative_to(root) if given.is_absolute() else given)))
        else:
            matched = [base / given]
        if not matched:
            raise InputError("sweep", f"traces[{index}]", f"nothing matches {pattern!r} in {base}")
        for path in matched:
            inside = not given.is_absolute() and path.is_relative_to(base)
            out[str(path.relative_to(base) if inside else path)] = path
    return out


def identify(path: Path) -> tuple[str, int, tuple[int, int]]:
    """A hash of the trace's content, its number of rows, and its span (ns).

    :raises InputError: no trace.
    """
    trace = Trace.open(path)
    content = trace.provenance.content_hash
    if content is None:
        with path.open("rb") as raw:
            content = hashlib.file_digest(raw, "sha256").hexdigest()
    return content, trace.rows, trace.span


def _id(*parts: Any) -> str:
    raw = msgspec.json.encode(parts, order="deterministic")
    return hashlib.sha256(raw).hexdigest()[:20]


def cell_id(trace: str, entries: Sequence[PlannedRow]) -> str:
    """The name of the cell that holds *entries*."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(trace).stem[:40])
    return f"{stem}-{_id([e.id for e in entries])}"


def _entry(
    combination: Combination, trace: str, trace_hash: str, settings: dict[str, Any], scale: float
) -> PlannedRow:
    text = describe(combination.make())
    # Rules by value: what a profile's name stands for may change.
    name = _id(
        __version__, trace, trace_hash, text, repr(combination.rules), combination.config, combination.budget, scale, settings
    )  # fmt: skip
    return PlannedRow(
        id=name, make=text, policy=combination.policy, rules=combination.rules.name, config=combination.config,
        budget=combination.budget, knobs=dict(combination.knobs),
    )  # fmt: skip


def plan(spec: Spec, base: Path) -> tuple[list[Cell], dict[str, str]]:
    """Every cell, trace by trace; and the traces that cannot be read: name -> why.

    :raises UsageError: see :func:`rows`.
    :raises InputError: see :func:`find`.
    """
    scales = [scale_of(value) for value in _values(spec.time_scale)]
    combos = rows(spec)
    hosts = [(c.make(), c.config) for c in combos]
    settings: dict[str, Any] = {
        "backing": spec.backing,
        "empty": spec.empty,
        "tlb": spec.tlb,
        "maps": spec.maps,
    }
    cells: list[Cell] = []
    damaged: dict[str, str] = {}
    for name, path in find(spec, base).items():
        try:
            content, size, span = identify(path)
        except SecondSightError as error:
            damaged[name] = str(error)
            continue
        for scale in scales:
            try:
                bound(scale, span, hosts)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
            scaled = {"time_scale": scale} if len(scales) > 1 else {}
            entries = [
                _entry(replace(c, knobs={**c.knobs, **scaled}), name, content, settings, scale)
                for c in combos
            ]
            cells.extend(
                Cell(
                    id=cell_id(name, chunk), trace=name, path=str(path.resolve()), weight=float(size) * (2 + len(chunk)), entries=chunk,
                    config=HOST, time_scale=scale, **settings,
                )
                for chunk in _chunks(entries, spec.together)
            )  # fmt: skip
    return cells, damaged


def _chunks(entries: Sequence[PlannedRow], size: int) -> Iterator[list[PlannedRow]]:
    for start in range(0, len(entries), size):
        yield list(entries[start : start + size])
