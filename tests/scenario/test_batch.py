"""Merging is invisible: what is split off a merged answer is each scenario's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Knobs
from secondsight.scenario import batch
from secondsight.scenario import verbs as v
from secondsight.scenario.results import BlockPass, PageState, Run, StepAnswer


def scenario(*steps: v.Verb, blocks: int = 1, **more: object) -> v.Scenario:
    return v.Scenario(spaces=(v.SpaceSpec("a", blocks),), steps=steps, **more)


W, S, LOOK = v.CpuWrite("a", "0"), v.Scan(), v.Observe()


def test_scans_line_up() -> None:
    merged = batch.merge([scenario(W, S, W, S), scenario(W, W, S, S, S)])
    assert [(type(s).__name__, o) for s, o in zip(merged.scenario.steps, merged.origin, strict=True)] == [
        ("CpuWrite", ((0, 0),)),
        ("CpuWrite", ((1, 0),)),
        ("CpuWrite", ((1, 1),)),
        ("Scan", ((0, 1), (1, 2))),
        ("CpuWrite", ((0, 2),)),
        ("Scan", ((0, 3), (1, 3))),
        ("Scan", ((1, 4),)),
    ]
    assert merged.passes == (2, 3)
    assert [s.name for s in merged.scenario.spaces] == ["0.a", "1.a"]


def test_several_passes_of_one_scan_meet_single_ones() -> None:
    merged = batch.merge([scenario(v.Scan(passes=2), W), scenario(S, S)])
    assert merged.origin == (((0, 0), (1, 0)), ((0, 0), (1, 1)), ((0, 1),))


def test_ksm_values_differ_between_scenarios_and_zero_stays_zero() -> None:
    steps = batch.merge([scenario(v.CpuWrite("a", "0", 7), v.CpuWrite("a", "0", 0))] * 2).scenario.steps
    values = [s.value for s in steps]
    assert values[0] != values[2] and values[1] == values[3] == 0
    assert all(0 < x < 1 << 63 for x in (values[0], values[2]))


def test_ksmd_runs_once_for_all_and_only_among_those_that_run_it_at_the_same_time() -> None:
    ksm = v.KsmMerge()
    merged = batch.merge([scenario(W, ksm, W, S), scenario(W, W, ksm, S, S)])
    assert [(type(s).__name__, o) for s, o in zip(merged.scenario.steps, merged.origin, strict=True)] == [
        ("CpuWrite", ((0, 0),)),
        ("CpuWrite", ((1, 0),)),
        ("CpuWrite", ((1, 1),)),
        ("KsmMerge", ((0, 1), (1, 2))),
        ("CpuWrite", ((0, 2),)),
        ("Scan", ((0, 3), (1, 3))),
        ("Scan", ((1, 4),)),
    ]
    never, first, second = scenario(W, S), scenario(ksm, S), scenario(S, ksm, S)
    assert batch.plan([never, first, second, never, first, second]) == [[0, 3], [1, 4], [2, 5]]


def test_observe_names_the_living_spaces_of_its_own_scenario() -> None:
    own = scenario(LOOK, v.Fork("a", "b"), LOOK, v.Exit("a"), LOOK)
    merged = batch.merge([scenario(W), own])
    assert list(merged.observe.values()) == [("1.a",), ("1.a", "1.b"), ("1.b",)]


def test_different_hosts_and_knob_sequences_do_not_merge() -> None:
    plain, other = scenario(S), scenario(S, host=HostConfig(knobs=Knobs(max_ptes_none=0)))
    turned = scenario(v.SetKnobs(max_ptes_none=3), S)
    with pytest.raises(UsageError):
        batch.merge([plain, other])
    with pytest.raises(UsageError):
        batch.merge([plain, turned])
    assert batch.plan([plain, other, turned, plain, turned]) == [[0, 3], [1], [2, 4]]


def test_plan_respects_the_size_and_counts_forked_spaces() -> None:
    big, forks = scenario(S, blocks=3), scenario(v.Fork("a", "b"), S, blocks=2)
    assert batch.plan([big, big, big], size=6) == [[0, 1], [2]]
    assert batch.plan([forks, forks], size=7) == [[0], [1]]


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(UsageError):
        batch.merge([])


@st.composite
def some_scenarios(draw: st.DrawFn) -> list[v.Scenario]:
    step = st.sampled_from([W, S, LOOK, v.Scan(passes=2), v.SwapOut("a", "0")])
    return [scenario(*draw(st.lists(step, max_size=6))) for _ in range(draw(st.integers(1, 5)))]


@given(some_scenarios())
def test_every_step_is_carried_out_once_in_order_and_split_gives_it_back(scenarios: list[v.Scenario]) -> None:
    merged = batch.merge(scenarios)
    for k, own in enumerate(scenarios):
        done = [i for pairs in merged.origin for kk, i in pairs if kk == k]
        wanted = [i for i, s in enumerate(own.steps) for _ in range(s.passes if isinstance(s, v.Scan) else 1)]
        assert done == wanted
    # Answer the merged scenario with markers; each scenario gets its own, in its own numbering.
    blocks, answers, states, passes = [], [], [], 0
    for i, verb in enumerate(merged.scenario.steps):
        if isinstance(verb, v.Scan):
            passes += 1
            blocks += [
                BlockPass(passes, s.name, 0, "succeeded", int(s.name[0]), 0, 0)
                for s in merged.scenario.spaces
            ]
        elif isinstance(verb, v.SwapOut):
            answers.append(StepAnswer(i, took=verb.space))
        elif isinstance(verb, v.Observe):
            states += [PageState(i, name, [(1, name)], [], []) for name in merged.observe[i]]
    runs = batch.split(merged, Run("kernel", blocks, answers, states))
    for k, (own, run) in enumerate(zip(scenarios, runs, strict=True)):
        asked = sum(s.passes for s in own.steps if isinstance(s, v.Scan))
        assert [(b.pass_, b.space, b.referenced) for b in run.blocks] == [
            (p + 1, "a", k) for p in range(asked)
        ]
        assert [a.step for a in run.answers] == [
            i for i, s in enumerate(own.steps) if isinstance(s, v.SwapOut)
        ]
        assert [s.step for s in run.states] == [
            i for i, s in enumerate(own.steps) if isinstance(s, v.Observe)
        ]
        assert all(s.space == "a" and s.pte == [(1, f"{k}.a")] for s in run.states)
