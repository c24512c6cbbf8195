"""Two answers to one scenario, field by field: what differs, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.plural import pluralize
from secondsight.scenario.results import BlockPass, PageState, Run

__all__ = ["FIELDS", "Difference", "between"]

#: Everything that is compared. A difference in any of them is a disagreement.
FIELDS = (
    "visits (which blocks, in which pass)", "status", "referenced", "none_or_zero", "unmapped", "writable", "swapin",
    "isolate.status", "isolate.referenced", "isolate.none_or_zero", "isolate.writable", "collapse", "attempts", "order", "errno",
    "file.result", "file.present", "file.swap", "file.file", "file.names_page", "file.collapse",
    "state.pte", "state.flags", "state.mapcount", "state.spte",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One field of one scenario's answer: what the model said, what the kernel said."""

    scenario: int
    where: str
    field: str
    model: str
    kernel: str

    def __str__(self) -> str:
        """One line."""
        return f"#{self.scenario} {self.where} {self.field}: model {self.model}, kernel {self.kernel}"


def between(index: int, model: Run, kernel: Run) -> list[Difference]:
    """The fields in which two answers to scenario *index* differ: the *model*'s and the *kernel*'s, or any two."""
    out: list[Difference] = []

    def differ(where: str, name: str, ours: object, theirs: object) -> None:
        if ours != theirs:
            out.append(Difference(index, where, name, str(ours), str(theirs)))

    ours = {(b.pass_, b.space, b.block): b for b in model.blocks}
    theirs = {(b.pass_, b.space, b.block): b for b in kernel.blocks}
    for key in sorted(ours.keys() | theirs.keys()):
        where = f"pass {key[0]} {key[1]}:{key[2]}"
        if key not in ours or key not in theirs:
            differ(where, "visited", _visit(ours.get(key)), _visit(theirs.get(key)))
            continue
        a, b = ours[key], theirs[key]
        for name in ("status", "referenced", "none_or_zero", "unmapped", "writable"):
            differ(where, name, getattr(a, name), getattr(b, name))
        _attempts(differ, where, a, b)
    _files(differ, model, kernel)
    errnos = [{a.step: a.errno for a in each.answers if a.errno is not None} for each in (model, kernel)]
    for step in sorted(errnos[0].keys() | errnos[1].keys()):
        differ(f"step {step}", "errno", errnos[0].get(step), errnos[1].get(step))
    shown = {(s.step, s.at, s.pass_, s.space): s for s in model.states}
    for state in kernel.states:
        mine = shown.get((state.step, state.at, state.pass_, state.space))
        where = f"{state.at} pass {state.pass_} (step {state.step}) {state.space}"
        if mine is None:
            differ(where, "state", "absent", "present")
        else:
            _states(differ, where, mine, state)
    return out


def _files(differ: Callable[[str, str, object, object], None], model: Run, kernel: Run) -> None:
    """The visits to shared memory, every field of both tracepoints."""
    ours = {(b.pass_, b.space, b.block): b for b in model.files}
    theirs = {(b.pass_, b.space, b.block): b for b in kernel.files}
    for key in sorted(ours.keys() | theirs.keys()):
        where = f"pass {key[0]} {key[1]}:{key[2]}"
        a, b = ours.get(key), theirs.get(key)
        if a is None or b is None:
            differ(where, "visited", a.result if a else "not visited", b.result if b else "not visited")
            continue
        for name in ("result", "present", "swap", "file", "names_page", "collapse"):
            differ(where, f"file.{name}", getattr(a, name), getattr(b, name))


def _attempts(
    differ: Callable[[str, str, object, object], None], where: str, ours: BlockPass, theirs: BlockPass
) -> None:
    """The candidates that were tried, one beside the other: each one's order, and what every event of it said."""
    differ(where, "attempts", [a.order for a in ours.attempts], [a.order for a in theirs.attempts])
    for i, (a, b) in enumerate(zip(ours.attempts, theirs.attempts, strict=False)):
        here = f"{where} attempt {i + 1}" if i else where
        differ(here, "collapse", a.status, b.status)
        differ(here, "swapin", a.swapin, b.swapin)
        if a.isolate is None or b.isolate is None:
            differ(here, "isolate", a.isolate, b.isolate)
            continue
        for name in ("status", "referenced", "none_or_zero", "writable"):
            differ(here, f"isolate.{name}", getattr(a.isolate, name), getattr(b.isolate, name))


def _states(
    differ: Callable[[str, str, object, object], None], where: str, ours: PageState, theirs: PageState
) -> None:
    for name in ("pte", "flags", "mapcount"):
        _pages(differ, where, f"state.{name}", getattr(ours, name), getattr(theirs, name))
    for notifier in theirs.spte.keys() & ours.spte.keys():
        _pages(differ, where, "state.spte", ours.spte[notifier], theirs.spte[notifier])


def _pages(
    differ: Callable[[str, str, object, object], None], where: str, name: str,
    ours: list[tuple[int, str]] | list[tuple[int, int]], theirs: list[tuple[int, str]] | list[tuple[int, int]],
) -> None:  # fmt: skip
    """The first page that differs, and how many do."""
    a = [value for count, value in ours for _ in range(count)]
    b = [value for count, value in theirs for _ in range(count)]
    wrong = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    if wrong:
        i = wrong[0]
        text = f" (page {i // HPAGE_PMD_NR}:{i % HPAGE_PMD_NR}, {pluralize(len(wrong), 'page')})"
        differ(where, name, f"{_shown(a[i])}{text}", _shown(b[i]))


def _shown(value: str | int) -> str:
    return hex(value) if isinstance(value, int) else value


def _visit(b: BlockPass | None) -> str:
    return "not visited" if b is None else b.status
