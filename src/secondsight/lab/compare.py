"""Model against kernel: the same scenarios, merged alike, every field of every answer.

    scenarios --> kernel (lab.run) --> what the kernel chose (took) --> the model runs the very same merged scenario
                       |                                                     |
                       +------------------ field by field -------------------+--> differences --> shrunk

A batch in which something differs is asked a second time, on a fresh boot. Where the kernel now answers the same scenario
otherwise, and as the model does, chance had a hand in it (a page of somebody else's in an LRU batch), and no rule is at
fault: that is *unsteady*, and told apart. Shrinking is done on the kernel too: every shorter candidate of a round runs in
one batch, the shortest that still differs goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from secondsight.lab import coverage, kernels
from secondsight.lab.difference import FIELDS, Difference, between
from secondsight.lab.machines import on_machine
from secondsight.lab.run import Failure, blocks_of, run
from secondsight.mm.profiles import for_kernel, has_profile, newest
from secondsight.mm.rules import Rules
from secondsight.plural import pluralize
from secondsight.scenario import batch, verbs
from secondsight.scenario.results import Run
from secondsight.scenario.run import run as run_model

__all__ = [
    "FIELDS",
    "AnsweredBatch",
    "Comparison",
    "Difference",
    "batches",
    "between",
    "by_batch",
    "compare",
    "held_against",
    "shorter_versions",
    "shrink",
    "weight",
]

Say = Callable[[str], None]


@dataclass
class Comparison:
    """What a comparison found; *agreed* scenarios have no difference, *failures* got no answer from the kernel, *unsteady* ones agreed
    when a second boot was asked."""

    kernel: str
    mmu: str
    rules: str
    scenarios: int
    visits: int = 0
    states: int = 0
    differences: list[Difference] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    unsteady: list[int] = field(default_factory=list)
    #: What the kernel was seen to answer, and what it could have and was seen too seldom (``coverage``).
    covered: list[coverage.Seen] = field(default_factory=list)
    rare: list[coverage.Seen] = field(default_factory=list)

    @property
    def agreed(self) -> int:
        """Scenarios answered alike in every field."""
        return self.scenarios - len({d.scenario for d in self.differences}) - len(self.failures)


def compare(
    scenarios: Sequence[verbs.Scenario], kernel: str | kernels.Kernel, mmu: str, *, rules: Rules | None = None, states: bool = True,
    size: int | None = None, say: Say = lambda text: None,
) -> Comparison:  # fmt: skip
    """Ask *kernel* (a name, or one that was resolved) on *mmu* and the model under *rules* (the kernel's own by default), and compare."""
    booted = kernels.resolve(kernel) if isinstance(kernel, str) else kernel
    if rules is None:
        rules = for_kernel(booted.upstream)
        if not has_profile(booted.upstream):
            say(f"{booted.release} has no profile of its own; it is compared under that of {rules.name}")
    scenarios = on_machine(scenarios, mmu)
    answers = run(scenarios, booted, mmu, states=states, size=size, say=say)
    if lost := sum(isinstance(answer, Failure) for answer in answers):
        # Bochs deadlocks now and then, whatever it is asked. What has been answered is kept, and not asked again.
        say(f"{pluralize(lost, 'scenario')} got no answer: asking a second time")
        answers = run(scenarios, booted, mmu, states=states, size=size, say=say)
    report = Comparison(booted.release, mmu, rules.title, len(scenarios))
    for i, answer in enumerate(answers):
        if isinstance(answer, Failure):
            report.failures.append(
                (i, f"{answer.why}\n{answer.console[-1500:]}" if answer.console else answer.why)
            )
    for members in batch.plan(scenarios, size or blocks_of(mmu)):
        differences = _judge(scenarios, members, answers, rules, states)
        again = {d.scenario for d in differences}
        if again:
            say(
                f"{len(again)} of {pluralize(len(members), 'scenario')} of a batch differ: asking a second time"
            )
            asked = [scenarios[i] for i in members]
            with tempfile.TemporaryDirectory(prefix="secondsight-again-") as folder:
                second = run(asked, booted, mmu, states=states, size=size, folder=Path(folder), say=say)
            differ = {
                members[d.scenario] for d in _judge(asked, range(len(asked)), second, rules, states)
            } | {members[i] for i, answer in enumerate(second) if isinstance(answer, Failure)}
            report.unsteady.extend(sorted(again - differ))
        report.differences.extend(d for d in differences if d.scenario not in report.unsteady)
        for i in members:
            if isinstance(theirs := answers[i], Run):
                report.visits += len(theirs.blocks) + len(theirs.files)
                report.states += len(theirs.states)
    counted = coverage.seen(answer for answer in answers if isinstance(answer, Run))
    report.covered = coverage.listed(counted)
    orders = coverage.orders_asked((s.host for s in scenarios), rules)
    spaces = [space for s in scenarios for space in s.spaces]
    report.rare = coverage.rare(
        counted,
        rules,
        orders,
        private=any(s.shared is None for s in spaces),
        shared=any(s.shared for s in spaces),
    )
    return report


def held_against(
    scenarios: Sequence[verbs.Scenario], answers: Sequence[Run | Failure], mmu: str, rules: Rules, *, states: bool = True,
    size: int | None = None,
) -> list[Difference]:  # fmt: skip
    """Where the model under *rules* answers otherwise than a kernel's *answers* to *scenarios* (on *mmu*, in batches of *size*) say.

    No kernel is booted: answers that are kept can be asked again under any rules.
    """
    return [d for _, part in by_batch(scenarios, answers, mmu, rules, states=states, size=size) for d in part]


def by_batch(
    scenarios: Sequence[verbs.Scenario], answers: Sequence[Run | Failure], mmu: str, rules: Rules, *, states: bool = True,
    size: int | None = None,
) -> Iterator[tuple[Sequence[int], list[Difference]]]:  # fmt: skip
    """The differences of ``held_against``, batch by batch (its scenarios, what differs) as the kernel was asked: whoever has seen enough
    can stop.

    A part of a batch cannot be asked alone: its scenarios share passes, and with them the LRU's batches.
    """
    for each in batches(scenarios, answers, mmu, size=size):
        yield each.members, each.differences(rules, states=states)


@dataclass(frozen=True)
class AnsweredBatch:
    """Scenarios that a kernel answered together, ready for the model to be asked again and again: *members* of the campaign (indices),
    those that have an answer among them (*alive*) as *merged*, which the model runs as *fed*, and what the kernel said of each (*runs*)."""

    members: Sequence[int]
    alive: Sequence[int]
    merged: batch.Merged | None
    fed: verbs.Scenario | None
    runs: Sequence[Run]

    def differences(self, rules: Rules, *, states: bool = True) -> list[Difference]:
        """What the model under *rules* answers otherwise."""
        if self.fed is None or self.merged is None:
            return []
        model = run_model(self.fed, rules, keep_states=states)
        out: list[Difference] = []
        for i, ours, theirs in zip(self.alive, batch.split(self.merged, model), self.runs, strict=True):
            out.extend(between(i, ours, theirs))
        return out


def batches(
    scenarios: Sequence[verbs.Scenario],
    answers: Sequence[Run | Failure],
    mmu: str,
    *,
    size: int | None = None,
) -> Iterator[AnsweredBatch]:
    """The batches in which *answers* were given on *mmu*, *size* blocks to a pass (default: what the machine has memory for)."""
    scenarios = on_machine(scenarios, mmu)
    for members in batch.plan(scenarios, size or blocks_of(mmu)):
        yield _batch(scenarios, members, answers)


def _batch(
    scenarios: Sequence[verbs.Scenario], members: Sequence[int], answers: Sequence[Run | Failure]
) -> AnsweredBatch:
    # A batch in which a scenario failed was cut apart: what was merged with what is only known for whole ones.
    alive = [i for i in members if isinstance(answers[i], Run)]
    runs: list[Run] = [a for i in alive if isinstance(a := answers[i], Run)]
    if not alive:
        return AnsweredBatch(members, [], None, None, [])
    merged = batch.merge([scenarios[i] for i in alive])
    return AnsweredBatch(members, alive, merged, feed(merged, runs), runs)


def _judge(
    scenarios: Sequence[verbs.Scenario], members: Sequence[int], answers: Sequence[Run | Failure], rules: Rules, states: bool,
) -> list[Difference]:  # fmt: skip
    """What the model, given the same batch of *members*, answers otherwise."""
    return _batch(scenarios, members, answers).differences(rules, states=states)


def feed(merged: batch.Merged, runs: Sequence[Run]) -> verbs.Scenario:
    """The merged scenario with what the kernel chose (*took*) written into its steps."""
    chosen = [{a.step: a.took for a in each.answers if a.took is not None} for each in runs]
    placed = [{a.step: a.slots for a in each.answers if a.slots} for each in runs]
    steps: list[verbs.Verb] = []
    for step, origin in zip(merged.scenario.steps, merged.origin, strict=True):
        if isinstance(step, verbs.SwapOut | verbs.Age) and origin:
            k, i = origin[0]
            took = chosen[k].get(i)
            step = msgspec.structs.replace(step, took=took if isinstance(took, str) else "")
            if isinstance(step, verbs.SwapOut):
                step = msgspec.structs.replace(step, slots=placed[k].get(i, ()))
        elif isinstance(step, verbs.KsmMerge) and origin:
            named: dict[str, str] = {}
            for k, i in origin:
                merges = chosen[k].get(i)
                if isinstance(merges, dict):
                    named |= {f"{k}.{name}": text for name, text in merges.items()}
            step = msgspec.structs.replace(step, took=named)
        steps.append(step)
    return msgspec.structs.replace(merged.scenario, steps=tuple(steps))


def shrink(
    scenario: verbs.Scenario, kernel: str | kernels.Kernel, mmu: str, *, rules: Rules | None = None, states: bool = False, rounds: int = 12,
    say: Say = lambda text: None,
) -> verbs.Scenario:  # fmt: skip
    """The shortest scenario found that model and kernel still answer differently."""
    best = scenario
    for _ in range(rounds):
        shorter = shorter_versions(best)
        if not shorter:
            break
        report = compare(shorter, kernel, mmu, rules=rules, states=states, say=say)
        bad = sorted({d.scenario for d in report.differences}, key=lambda i: weight(shorter[i]))
        if not bad:
            break
        best = shorter[bad[0]]
    return best


def weight(s: verbs.Scenario) -> tuple[int, int]:
    """How much there is of a scenario: steps, then the text that says pages."""
    return len(s.steps), sum(len(getattr(step, "pages", None) or "") for step in s.steps)


def shorter_versions(s: verbs.Scenario) -> list[verbs.Scenario]:
    """Shorter versions: a half, a quarter or one step less, and pages made fewer; only those that are still possible."""
    from secondsight.errors import SecondSightError
    from secondsight.scenario.files import check

    out: list[verbs.Scenario] = []
    n = len(s.steps)
    for length in sorted({n // 2, n // 4, 1}, reverse=True):
        if length:
            out.extend(
                msgspec.structs.replace(s, steps=s.steps[:start] + s.steps[start + length :])
                for start in range(0, n, length)
            )
    for i, step in enumerate(s.steps):
        for fewer in _fewer(getattr(step, "pages", None)):
            changed = msgspec.structs.replace(step, pages=fewer)
            out.append(msgspec.structs.replace(s, steps=(*s.steps[:i], changed, *s.steps[i + 1 :])))
    possible = []
    for each in out:
        try:
            check(each)
            run_model(each, newest())
        except SecondSightError:
            continue
        if any(isinstance(step, verbs.Scan) for step in each.steps):
            possible.append(each)
    return possible[:120]


def _fewer(pages: str | None) -> list[str]:
    if not pages or ":" not in pages or " " in pages:
        return []
    block, inner = pages.split(":")
    parts = inner.split(",")
    if len(parts) > 1:
        half = len(parts) // 2
        return [f"{block}:{','.join(parts[:half])}", f"{block}:{','.join(parts[half:])}"]
    low, _, high = inner.partition("-")
    if high and int(high) > int(low):
        middle = (int(low) + int(high)) // 2
        return [f"{block}:{low}-{middle}", f"{block}:{low}"]
    return []
