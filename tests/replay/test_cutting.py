"""The fast path is the same verbs in larger batches: where a batch, a chunk or the trace's reading is cut changes nothing; and what is
noted and folded in gives the very visits that a scenario of the same verbs gets, one access at a time."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secondsight.mm.config import HostConfig
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.policy.registry import make
from secondsight.replay import HOST, Configuration, engine, replay, tlb_path
from secondsight.replay.tlb import TlbConfig
from secondsight.scenario import run as scenario_run
from secondsight.scenario import verbs
from secondsight.trace.kinds import Kind, Verb
from support.events import CR, CW, GR, GW, trace

BLOCKS = 2
PAGES = (0, 1, 511)
KINDS = {
    "process": (CR, CW, Kind.DEVICE_WRITE, Kind.PIN_READ),
    "vm": (GR, GW, CR, CW, Kind.PIN_WRITE),
}
VERBS = (
    Verb.CLEAR_REFS,
    Verb.MADV_DONTNEED,
    Verb.MADV_NOHUGEPAGE,
    Verb.MADV_HUGEPAGE,
    Verb.SWAP_OUT,
    Verb.UNPIN,
)
SPACES = ("vm", "process")


@st.composite
def rows(draw):
    """Up to 60 events in 45 s, most pages in several of its intervals; at their end every block is touched: all layouts are the same."""
    out = []
    for second in sorted(
        draw(st.lists(st.sampled_from([0, 3, 10, 14, 22, 29, 35, 44]), min_size=1, max_size=12))
    ):
        for _ in range(draw(st.integers(1, 5))):
            space = draw(st.integers(0, 1))
            block, page = draw(st.integers(0, BLOCKS - 1)), draw(st.sampled_from(PAGES))
            if draw(st.integers(0, 6)) == 0:
                verb = draw(st.sampled_from(VERBS))
                whole = verb in (Verb.MADV_DONTNEED, Verb.MADV_HUGEPAGE, Verb.MADV_NOHUGEPAGE)
                out.append((second, space, block, 0 if whole else page, verb, 512 if whole else 1))
            else:
                out.append((second, space, block, page, draw(st.sampled_from(KINDS[SPACES[space]])), 1))
    out[0] = (0, *out[0][1:])
    return out + [
        (45, s, b, 7, CW if SPACES[s] == "process" else GW, 1) for s in (0, 1) for b in range(BLOCKS)
    ]


def outcome_of(result):
    """Everything that was found, for comparing."""
    columns = [{name: value.tolist() for name, value in d.visits.columns().items()} for d in result.data]
    channels = [
        [np.array(getattr(d.channels, n)).tolist() for n in ("primary", "referenced", "secondary", "huge")]
        for d in result.data
    ]
    blocks = [
        [d.blocks.accesses_huge.tolist(), d.blocks.populated.tolist(), d.blocks.first_huge.tolist()]
        for d in result.data
    ]
    return result.configurations, columns, channels, blocks


CONFIGURATIONS = [
    Configuration.of("6.1"),
    Configuration.of("7.2"),
    Configuration(
        "2.6.38 ept", Configuration.of("2.6.38").rules, HostConfig(mmu="ept", thp_enabled="always")
    ),
    Configuration(
        "6.12 noad empty",
        Configuration.of("6.12").rules,
        HostConfig(mmu="ept-noad", thp_enabled="always"),
        fill=False,
    ),
    Configuration("6.1 tlb", Configuration.of("6.1").rules, HOST, tlb=TlbConfig(2, 1, 1, 1, 4, 2)),
    Configuration(
        "7.2 shadow faults",
        Configuration.of("7.2").rules,
        HostConfig(mmu="shadow", thp_enabled="always"),
        fill=False,
        faults="huge",
        budget=4,
    ),
    Configuration("6.1 madv_collapse", Configuration.of("6.1").rules, policy=lambda: make("madv_collapse")),
    Configuration(
        "7.2 thp_shrinker",
        Configuration.of("7.2").rules,
        policy=lambda: make("thp_shrinker,max_ptes_none=100"),
    ),
]


@settings(max_examples=30, deadline=None)
@given(rows(), st.integers(1, 7), st.sampled_from([1, 2, 5]))
@example([(0, 0, 0, 0, CR), (0, 0, 0, 0, GW), (11, 0, 0, 0, GR), (45, 0, 0, 0, CW)], 1, 1)
# A page that a pin made is zero-filled until the store behind it.
@example(
    [(0, 0, 0, 0, Kind.PIN_WRITE, 1), (0, 0, 0, 0, Kind.CPU_WRITE, 1), (0, 0, 0, 0, Verb.UNPIN, 1)], 5, 1
)
def test_cutting_changes_nothing(events, batch, chunk):
    whole = replay(trace(events, SPACES), CONFIGURATIONS, channels=True)
    before = engine.CHANGED, engine.SMALLEST, engine.LARGEST, tlb_path.CHUNK
    engine.CHANGED = engine.SMALLEST = engine.LARGEST = tlb_path.CHUNK = chunk
    try:
        cut = replay(trace(events, SPACES, batch=batch), CONFIGURATIONS, channels=True)
    finally:
        engine.CHANGED, engine.SMALLEST, engine.LARGEST, tlb_path.CHUNK = before
    assert outcome_of(cut) == outcome_of(whole)


@settings(max_examples=8, deadline=None)
@given(rows())
def test_a_subject_does_not_know_of_the_others(events):
    # The third is filled as the first was, by copying it.
    chosen = [CONFIGURATIONS[0], CONFIGURATIONS[2], CONFIGURATIONS[-2], CONFIGURATIONS[-1]]
    together = replay(trace(events, SPACES), chosen, channels=True)
    for i, configuration in enumerate(chosen):
        alone = replay(trace(events, SPACES), [configuration], channels=True)
        configurations, *rest = outcome_of(together)
        assert outcome_of(alone) == ([configurations[i]], *([part[i]] for part in rest))


@settings(max_examples=20, deadline=None)
@given(rows(), st.booleans())
def test_a_tlb_changes_no_verdict_unless_bits_are_cleared_behind_it(events, guest_huge):
    # What a hit leaves unset is set already, since the walk that brought the entry; only clear_refs clears bits and flushes nothing.
    events = [row for row in events if row[4] != Verb.CLEAR_REFS]
    tlb = TlbConfig(guest_huge=guest_huge)
    behind = [Configuration(s.name, s.rules, s.config, fill=s.fill, tlb=tlb) for s in CONFIGURATIONS[:4]]
    without = outcome_of(replay(trace(events, SPACES), CONFIGURATIONS[:4], channels=True))
    with_tlb = outcome_of(replay(trace(events, SPACES), behind, channels=True))
    assert with_tlb[1:] == without[1:]
    for one in with_tlb[0]:
        assert 0 < one.total.walks <= one.total.accesses


# -- against scenarios -----------------------------------------------------------------------------------------------


def steps(events):
    """The scenario's verbs for *events*: each with its second."""
    held = set()
    for second, space, block, page, kind, _ in events:
        name, where = f"s{space}", f"{block}:{page}"
        whole = str(block)
        if kind in (Kind.CPU_READ, Kind.GUEST_READ, Kind.CPU_WRITE, Kind.GUEST_WRITE):
            make = {CR: verbs.CpuRead, CW: verbs.CpuWrite, GR: verbs.GuestRead, GW: verbs.GuestWrite}[kind]
            yield second, make(space=name, pages=where)
        elif kind == Kind.DEVICE_WRITE:
            yield second, verbs.IoZeroCopy(space=name, pages=where, write=True)
        elif kind in (Kind.PIN_READ, Kind.PIN_WRITE):
            held.add((name, where))
            yield second, verbs.Pin(space=name, pages=where, name=where, write=kind == Kind.PIN_WRITE)
        elif kind == Verb.UNPIN:
            if (name, where) in held:
                held.discard((name, where))
                yield second, verbs.Unpin(space=name, name=where)
        elif kind == Verb.CLEAR_REFS:
            yield second, verbs.ClearRefs(space=name)
        elif kind == Verb.SWAP_OUT:
            yield second, verbs.SwapOut(space=name, pages=where)
        else:
            advice = {
                Verb.MADV_DONTNEED: "dontneed",
                Verb.MADV_HUGEPAGE: "hugepage",
                Verb.MADV_NOHUGEPAGE: "nohugepage",
            }[kind]
            yield second, verbs.Madvise(space=name, pages=whole, advice=advice)


def by_scenario(events, rules):
    """The visits of a scenario of the same verbs: (wake-up, space, block, status, referenced, isolate's)."""
    spaces = tuple(
        verbs.SpaceSpec(name=f"s{i}", blocks=BLOCKS, vm=verbs.Vm() if kind == "vm" else None)
        for i, kind in enumerate(SPACES)
    )
    runner = scenario_run.Runner(verbs.Scenario(spaces=spaces, steps=(), host=HOST), rules)
    for mm in runner.host.mms.values():
        # A replay maps small pages at a first touch unless it is told otherwise.
        mm.fault_huge = np.zeros(mm.blocks, np.bool_)
        mm.refresh()
    out, wake = [], 1
    runner.host.khugepaged.on_visit = lambda v: out.append(
        (wake, v.mm.name, v.block, int(v.scan.code[v.row]), int(v.scan.referenced[v.row]),
         -1 if not v.isolates else int(v.isolates[0].code[0]))
    )  # fmt: skip

    def scan():
        runner.host.khugepaged.do_scan()

    for second, step in steps(events):
        while second >= 10 * wake:
            scan()
            wake += 1
        runner.take(step)
    scan()
    return out


@pytest.mark.parametrize("rules", ["thp-base", "2.6.38", "6.1", "7.2"])
@settings(max_examples=20, deadline=None)
@given(events=rows())
@example(
    events=[
        (0, 0, 0, 0, Kind.PIN_WRITE, 1),
        (0, 0, 0, 0, Verb.SWAP_OUT, 1),  # a page pinned for DMA stays where it is
        *(
            (45, space, block, 7, Kind.CPU_WRITE if space else Kind.GUEST_WRITE, 1)
            for space in (0, 1)
            for block in (0, 1)
        ),
    ]
)
def test_the_verdicts_are_those_of_a_scenario(rules, events):
    result = replay(trace(events, SPACES), [Configuration.of(rules, fill=False)])
    seen = result.data[0].visits
    verdicts = [
        (t // 10**10, f"s{s}", b, c, r, i)
        for t, s, b, c, r, i in zip(
            seen.time, seen.space, seen.block, seen.scan, seen.scan_referenced, seen.isolate, strict=True
        )
    ]
    assert verdicts == by_scenario(events, rules)


def test_the_events_reach_what_they_are_to_reach():
    # The strategy is no use unless it collapses, refuses in scan and in isolate, swaps and splits: one trace that does.
    events = [
        (0, 0, 0, 0, GW),
        (0, 1, 1, 0, CW),
        (0, 1, 1, 1, CW),
        (5, 1, 1, 1, Verb.SWAP_OUT),
        (12, 1, 1, 1, CR),
    ]
    events += [(45, s, b, 7, CW if SPACES[s] == "process" else GW) for s in (0, 1) for b in range(BLOCKS)]
    events = [(*row, 1)[:6] for row in events]
    verdicts = by_scenario(events, "7.2")
    assert (1, "s0", 0, Scan.SUCCEED, 1, Scan.SUCCEED) in verdicts
    assert any(scan == Scan.LACK_REFERENCED_PAGE for _, _, _, scan, _, _ in verdicts)
