"""Many scenarios as one: merged so that each of khugepaged's passes serves them all, and taken apart again.

    a:  w  s  r  s            a.w  b.w b.w  [scan]  a.r  b.c  [scan]  b.r  [scan]
    b:  w  w  s  c  s  r  s

All steps of every scenario up to its first scan come first, scenario after scenario, then one pass, and so on. ksmd, which
looks at every process too, is run once for all in the same way. Spaces are renamed ``0.vm``, ``1.vm`` …; values that KSM
could find equal are made different from one scenario to another. A scenario that has had its last scan goes on existing, and
its later visits are left out when the answer is taken apart. The merged scenario is a scenario: the model runs the very same
one, so that what merging couples (the LRU batches that a pass leaves behind) is modelled, not assumed away.

What is the host's and not a space's cannot differ within a merge: ``plan`` puts together what has the same ``host`` and the
same sequence of ``knobs`` and ``ksm_merge`` steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from secondsight.errors import UsageError
from secondsight.scenario import verbs as v
from secondsight.scenario.results import Run

__all__ = ["Merged", "merge", "plan", "split"]


class Merged(NamedTuple):
    """*scenario*: the merged one. *origin*: for each of its steps, the (scenario, step) pairs that it carries out. *passes*: how
    many passes each scenario asked for. *observe*: for each ``observe`` step, the spaces it is about."""

    scenario: v.Scenario
    origin: tuple[tuple[tuple[int, int], ...], ...]
    passes: tuple[int, ...]
    observe: dict[int, tuple[str, ...]]


def _rename(index: int, verb: v.Verb) -> v.Verb:
    changes: dict[str, object] = {}
    for field in ("space", "child"):
        if isinstance(name := getattr(verb, field, None), str):
            changes[field] = f"{index}.{name}"
    if isinstance(verb, v.CpuWrite) and verb.value:
        changes["value"] = (verb.value & 0xFFFF) | (index + 1) << 16
    return msgspec.structs.replace(verb, **changes) if changes else verb


def _own(index: int, shared: v.Shared | None) -> v.Shared | None:
    """The shared memory of scenario *index*, which no other one has."""
    if shared is None or not shared.memory:
        return shared
    return msgspec.structs.replace(shared, memory=f"{index}.{shared.memory}")


def _phases(scenario: v.Scenario) -> list[list[tuple[int, v.Verb]]]:
    """The steps between barriers; a barrier (a single pass, ``knobs`` or ``ksm_merge``) is the last step of its phase. Scans of
    several passes are several barriers."""
    out: list[list[tuple[int, v.Verb]]] = [[]]
    for i, verb in enumerate(scenario.steps):
        if isinstance(verb, v.Scan):
            for _ in range(verb.passes):
                out[-1].append((i, v.Scan(pages=verb.pages)))
                out.append([])
        else:
            out[-1].append((i, verb))
            if isinstance(verb, v.SetKnobs | v.KsmMerge):
                out.append([])
    return out


def _key(scenario: v.Scenario) -> bytes:
    """What must be equal in a merge: the host, and the barriers up to the last that is not a pass."""
    barriers: list[v.Verb] = []
    for verb in scenario.steps:
        if isinstance(verb, v.Scan):
            barriers += [v.Scan()] * verb.passes
        elif isinstance(verb, v.SetKnobs):
            barriers.append(verb)
        elif isinstance(verb, v.KsmMerge):
            barriers.append(v.KsmMerge())
    while barriers and isinstance(barriers[-1], v.Scan):
        barriers.pop()
    return msgspec.json.encode((scenario.host, barriers))


def plan(scenarios: Sequence[v.Scenario], size: int = 96) -> list[list[int]]:
    """Indices of *scenarios* in batches of at most *size* blocks (of spaces, forked ones included), each fit for :func:`merge`.

    Order is kept within a batch.
    """
    groups: dict[bytes, list[list[int]]] = {}
    left: dict[bytes, int] = {}
    for i, scenario in enumerate(scenarios):
        key = _key(scenario)
        blocks = {space.name: space.blocks for space in scenario.spaces}
        for verb in scenario.steps:
            if isinstance(verb, v.Fork):
                blocks[verb.child] = blocks.get(verb.space, 1)
        need = sum(blocks.values())
        if any(isinstance(verb, v.Scan) and verb.pages is not None for verb in scenario.steps):
            # What a wake-up reaches depends on all that is registered: it shares its pass with nobody.
            groups[key + str(i).encode()] = [[i]]
            continue
        if key not in groups or left[key] < need:
            groups.setdefault(key, []).append([])
            left[key] = size
        groups[key][-1].append(i)
        left[key] -= need
    return [batch for batches in groups.values() for batch in batches]


def merge(scenarios: Sequence[v.Scenario]) -> Merged:
    """One scenario that does what all *scenarios* do.

    :raises UsageError: they need different hosts or different knobs (see :func:`plan`), or there are none.
    """
    if not scenarios:
        raise UsageError("no scenarios to merge")
    if len({_key(s) for s in scenarios}) > 1:
        raise UsageError(
            "scenarios with different hosts, or that turn knobs or run ksmd at different times, cannot share a pass"
        )
    phases = [_phases(s) for s in scenarios]
    steps: list[v.Verb] = []
    origin: list[tuple[tuple[int, int], ...]] = []
    observe: dict[int, tuple[str, ...]] = {}
    alive = [{f"{k}.{space.name}" for space in s.spaces} for k, s in enumerate(scenarios)]
    for phase in range(max(map(len, phases))):
        barrier: v.Verb | None = None
        at: list[tuple[int, int]] = []
        for k, own in enumerate(phases):
            for i, verb in own[phase] if phase < len(own) else []:
                if isinstance(verb, v.Scan | v.SetKnobs | v.KsmMerge):
                    barrier = v.KsmMerge() if isinstance(verb, v.KsmMerge) else verb
                    at.append((k, i))
                    continue
                if isinstance(verb, v.Fork):
                    alive[k].add(f"{k}.{verb.child}")
                elif isinstance(verb, v.Exit):
                    alive[k].discard(f"{k}.{verb.space}")
                elif isinstance(verb, v.Observe):
                    observe[len(steps)] = tuple(sorted(alive[k]))
                steps.append(_rename(k, verb))
                origin.append(((k, i),))
        if barrier is not None:
            steps.append(barrier)
            origin.append(tuple(at))
    spaces = tuple(
        msgspec.structs.replace(space, name=f"{k}.{space.name}", shared=_own(k, space.shared))
        for k, s in enumerate(scenarios)
        for space in s.spaces
    )
    merged = v.Scenario(
        spaces=spaces, steps=tuple(steps), title=f"{len(scenarios)} scenarios merged", host=scenarios[0].host
    )
    passes = tuple(sum(verb.passes for verb in s.steps if isinstance(verb, v.Scan)) for s in scenarios)
    return Merged(merged, tuple(origin), passes, observe)


def split(merged: Merged, run: Run) -> list[Run]:
    """What *run*, the answer to the merged scenario, says of each scenario, in its own names, steps and passes."""
    step_of = [dict(pairs) for pairs in merged.origin]
    out: list[Run] = []
    for k in range(len(merged.passes)):
        prefix = f"{k}."
        # Passes count through the merged scenario; a scenario's own are the first ones, as long as it asks for any.
        blocks = [
            msgspec.structs.replace(b, space=b.space[len(prefix) :])
            for b in run.blocks
            if b.space.startswith(prefix) and b.pass_ <= merged.passes[k]
        ]
        files = [
            msgspec.structs.replace(
                f,
                space=f.space[len(prefix) :],
                file=f.file.replace(f"memfd:{prefix}", "memfd:").removeprefix(prefix),
            )
            for f in run.files
            if f.space.startswith(prefix) and f.pass_ <= merged.passes[k]
        ]
        answers = []
        for a in run.answers:
            if k not in step_of[a.step]:
                continue
            took = a.took
            if isinstance(took, dict):
                took = {n[len(prefix) :]: t for n, t in took.items() if n.startswith(prefix)}
            answers.append(msgspec.structs.replace(a, step=step_of[a.step][k], took=took))
        states = [
            msgspec.structs.replace(s, space=s.space[len(prefix) :], step=step_of[s.step][k])
            for s in run.states
            if s.space.startswith(prefix) and k in step_of[s.step]
        ]
        out.append(msgspec.structs.replace(run, blocks=blocks, answers=answers, states=states, files=files))
    return out
