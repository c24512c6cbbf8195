"""Ask two kernels the same scenarios, and what differs a second time; shorten what is left."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from secondsight.lab.compare import Say
from secondsight.lab.diff import Kinds, kinds, of_scenario, steady
from secondsight.lab.kernels import Kernel
from secondsight.lab.machines import on_machine
from secondsight.lab.run import Failure, run
from secondsight.lab.shorter import shorten
from secondsight.mm.profiles import for_kernel
from secondsight.plural import pluralize
from secondsight.scenario import verbs
from secondsight.scenario.results import Run

__all__ = ["differ"]


def differ(
    scenarios: Sequence[verbs.Scenario], first: Kernel, second: Kernel, mmu: str, *, shrink: bool = True, say: Say = lambda text: None,
) -> Kinds:  # fmt: skip
    """Everything that *second* answers otherwise than *first* to *scenarios* on *mmu*, grouped into kinds; *shrink*: each with its
    shortest scenario.

    What differs is asked a second time, on a fresh boot of both and alone; what is then otherwise is no difference of theirs. In company
    it may be another scenario's: what a collapse leaves in the LRU batches ends its neighbour's attempt.

    :raises MissingDependency: as :func:`secondsight.lab.run.run`.
    """
    scenarios = on_machine(scenarios, mmu)
    before, after = for_kernel(first.upstream), for_kernel(second.upstream)
    answers = [run(scenarios, kernel, mmu, states=True, say=say) for kernel in (first, second)]
    by_kind = kinds(scenarios, answers[0], answers[1], before, after)
    ask = _fresh(first, second, mmu, say)
    if by_kind.differing:
        say(f"{pluralize(len(by_kind.differing), 'scenario')} differ: asking both kernels a second time")
        asked = [scenarios[i] for i in by_kind.differing]
        again = {
            i: {kind.name for kind in of_scenario(scenarios[i], a, b)} if isinstance(a, Run) and isinstance(b, Run) else set()
            for i, (a, b) in zip(by_kind.differing, ask(asked), strict=True)
        }  # fmt: skip
        steady(by_kind, again)
    if shrink and by_kind.kinds:
        say(f"looking for the shortest scenario of {pluralize(len(by_kind.kinds), 'kind')}")
        shorten(by_kind.kinds, scenarios, ask, before, after)
    return by_kind


def _fresh(
    first: Kernel, second: Kernel, mmu: str, say: Say
) -> Callable[[Sequence[verbs.Scenario]], list[tuple[Run | Failure, Run | Failure]]]:
    """A function that answers scenarios by both kernels, each freshly booted, a scenario a pass."""

    def ask(asked: Sequence[verbs.Scenario]) -> list[tuple[Run | Failure, Run | Failure]]:
        out = []
        for kernel in (first, second):
            with tempfile.TemporaryDirectory(prefix="secondsight-again-") as folder:
                out.append(run(asked, kernel, mmu, states=True, size=1, folder=Path(folder), say=say))
        return list(zip(*out, strict=True))

    return ask
