"""The model in a kernel's place: answers to scenarios as a booted kernel of the given rules would give them, batches and all."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from secondsight.lab.run import Failure, blocks_of
from secondsight.mm.rules import Rules
from secondsight.scenario import batch, verbs
from secondsight.scenario.results import Run
from secondsight.scenario.run import run


def answers(scenarios: Sequence[verbs.Scenario], rules: Rules, mmu: str = "npt") -> list[Run | Failure]:
    """An answer for each of *scenarios*, as ``lab.run.run`` gives them."""
    scenarios = [msgspec.structs.replace(s, host=msgspec.structs.replace(s.host, mmu=mmu)) for s in scenarios]
    out: list[Run | Failure] = [Failure("", "not asked")] * len(scenarios)
    for members in batch.plan(scenarios, blocks_of(mmu)):
        merged = batch.merge([scenarios[i] for i in members])
        for i, answer in zip(
            members, batch.split(merged, run(merged.scenario, rules, keep_states=True)), strict=True
        ):
            out[i] = answer
    return out
