"""Mutants held against kept answers, in a process of their own: one line of JSON for each.

    the campaigns, and the mutants --stdin--> [this process] --stdout--> {"at": 3} {"noticed": "scenario 17, ..."} ...

A mutated module runs as plain Python, everything else as it was compiled; a mutant that crashes or never ends takes this process with it,
and whoever started it goes on with the next (``lab.score.score_mutants``).

What invalidating leaves behind is judged by ``zap`` ahead of an attempt, which no answer of a kernel shows by itself. So at every attempt
what scan, zap and isolate say ahead of it is held against the isolate that followed, which the kernel's answer shows.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

import secondsight.native as native
from secondsight.geometry import PMD_ORDER
from secondsight.lab import answers, mutants
from secondsight.lab.compare import batches
from secondsight.mm.khugepaged import attempt, isolate, orders, scan, walk, zap
from secondsight.mm.observe import of_model
from secondsight.mm.profiles import for_kernel

__all__ = ["Campaigns", "main"]

_MODULES: dict[str, ModuleType] = {
    "scan": scan,
    "isolate": isolate,
    "attempt": attempt,
    "orders": orders,
    "zap": zap,
}
_DECORATORS = ("native", "inlined", "merged", "allocating")


class Campaigns:
    """Kept answers that a mutant is held against, and what disagrees without any."""

    def __init__(self, files: list[str]) -> None:
        """*files*: as ``lab compare --keep`` wrote them."""
        self.kept = [answers.read(Path(file)) for file in files]
        # The shortest first: whatever notices is enough.
        self.asked = sorted(
            (
                (k, each)
                for k, kept in enumerate(self.kept)
                for each in batches(kept.scenarios, list(kept.answers), kept.mmu, size=kept.size)
            ),
            key=lambda item: len(item[1].fed.steps) if item[1].fed is not None else 0,
        )
        self.ahead = 0
        self.bad: set[tuple[int, int]] = set()
        self.bad = {(k, i) for k, i, _ in self._differences()}
        self.before = self.ahead

    def _differences(self) -> Iterator[tuple[int, int, str]]:
        """(campaign, scenario, what) of each difference, batch by batch; ``ahead`` counts predictions that failed."""
        self.ahead = 0
        with _watched(self):
            for k, asked in self.asked:
                kept = self.kept[k]
                for each in asked.differences(for_kernel(kept.upstream)):
                    if each.scenario not in kept.unsteady and (k, each.scenario) not in self.bad:
                        yield k, each.scenario, f"{each.where} {each.field}"
                if self.ahead > getattr(self, "before", self.ahead):
                    return

    def notice(self) -> str | None:
        """The first that the model, as it is now, answers otherwise; None: nothing."""
        try:
            for k, i, what in self._differences():
                return f"{self.kept[k].release} on {self.kept[k].mmu} #{i}, {what}"
        except Exception as error:  # the mutant's, whatever it is
            return f"it fails: {type(error).__name__}: {error}"[:160]
        return "what was foretold of an attempt did not come" if self.ahead > self.before else None


@contextmanager
def _watched(campaigns: Campaigns) -> Iterator[None]:
    """At every attempt of khugepaged, hold what zap and isolate foretell of it against what it found."""
    real = vars(walk)["collapse_huge_page"]

    def watched(
        mm: Any, block: int, *, khugepaged: bool, unmapped: int, order: int = PMD_ORDER, offset: int = 0
    ) -> Any:
        foretold = None
        if not unmapped:
            host = mm.host
            seen = of_model(mm, [block])
            after = zap.zap(seen, host.rules, mglru=host.config.mglru, order=order, offset=offset)
            foretold = isolate.isolate(
                after, host.config.knobs, host.rules, khugepaged=khugepaged, order=order, offset=offset
            )
        done = real(mm, block, khugepaged=khugepaged, unmapped=unmapped, order=order, offset=offset)
        if foretold is not None and done.isolate is not None:
            same = all(
                np.array_equal(getattr(foretold, name), getattr(done.isolate, name))
                for name in ("code", "referenced", "none_or_zero", "writable")
            )
            campaigns.ahead += not same
        return done

    vars(walk)["collapse_huge_page"] = watched
    try:
        yield
    finally:
        vars(walk)["collapse_huge_page"] = real


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@contextmanager
def mutated(file: str, tree: ast.Module) -> Iterator[None]:
    """While it lasts, module *file* of mm/khugepaged is what *tree* says, as plain Python, for all that use it."""
    module = _MODULES[file]
    before = dict(vars(module))
    kept = {name: getattr(native, name) for name in _DECORATORS}
    changed: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name in _DECORATORS:
            setattr(native, name, _plain)
        exec(compile(tree, str(module.__file__), "exec"), vars(module))
        own = {
            id(value): name
            for name, value in before.items()
            if getattr(value, "__module__", None) == module.__name__
        }
        for each in list(sys.modules.values()):
            space = getattr(each, "__dict__", {})
            if (
                each is None
                or each is module
                or not str(getattr(each, "__name__", "")).startswith("secondsight.")
            ):
                continue
            for name, value in list(space.items()):
                if id(value) in own:
                    changed.append((space, name, value))
                    space[name] = vars(module)[own[id(value)]]
        yield
    finally:
        for space, name, value in changed:
            space[name] = value
        vars(module).clear()
        vars(module).update(before)
        for name, value in kept.items():
            setattr(native, name, value)


def _lines_run(campaigns: Campaigns) -> dict[str, list[int]]:
    """The lines of each module that the campaigns run, all modules as plain Python."""
    seen: dict[str, set[int]] = {}
    names = {str(module.__file__): file for file, module in _MODULES.items()}

    def trace(frame: Any, event: str, argument: object) -> Any:
        file = names.get(frame.f_code.co_filename)
        if file is None:
            return None
        if event == "line":
            seen.setdefault(file, set()).add(frame.f_lineno)
        return trace

    def run(files: list[str]) -> None:
        if files:
            with mutated(files[0], ast.parse(mutants.source(files[0]))):
                run(files[1:])
            return
        sys.settrace(trace)
        try:
            campaigns.notice()
        finally:
            sys.settrace(None)

    run(list(_MODULES))
    return {file: sorted(lines) for file, lines in seen.items()}


def main() -> None:
    """Answer what stdin asks: {"files": [...]} first, then {"lines": true} or a mutant at a time."""

    def say(value: object) -> None:
        print(json.dumps(value), flush=True)

    request = json.loads(sys.stdin.readline())
    campaigns = Campaigns(request["files"])
    say({"ready": len(campaigns.kept), "bad": len(campaigns.bad)})
    for line in sys.stdin:
        request = json.loads(line)
        if "lines" in request:
            say({"lines": _lines_run(campaigns)})
            continue
        mutant = msgspec.convert(request, mutants.Mutant)
        with mutated(mutant.file, mutants.apply(mutant)):
            say({"noticed": campaigns.notice()})


if __name__ == "__main__":
    main()
