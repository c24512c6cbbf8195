"""khugepaged's row of a comparison, against booted kernels: their recorded answers to scenarios, which are replayed as traces here."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from secondsight.mm.profiles import for_kernel, has_profile
from secondsight.replay import Events
from secondsight.scenario import files
from secondsight.scenario.pages import parse
from secondsight.trace.kinds import Kind, Verb
from secondsight.trace.provenance import Space
from secondsight.whatif import compare

SCENARIOS = Path(__file__).resolve().parents[2] / "examples" / "scenarios"
NAMES = [
    "base-address-bug",
    "no-heuristic",
    "guest-only-npt",
    "guest-only-shadow",
    "guest-only-ept",
    "guest-only-ept-noad",
]
PASS = 10_000_000_000

KINDS = {
    "cpu_read": Kind.CPU_READ, "cpu_write": Kind.CPU_WRITE, "guest_read": Kind.GUEST_READ, "guest_write": Kind.GUEST_WRITE,
}  # fmt: skip


def cases():
    for name in NAMES:
        scenario = files.read(SCENARIOS / f"{name}.toml")
        for key in scenario.expect:
            kernel, slash, _ = key.partition("/")
            if slash and has_profile(kernel):
                yield pytest.param(scenario, key, for_kernel(kernel).name, id=f"{name} {key}")


def as_trace(scenario):
    """The scenario's verbs as a trace of one VM: what comes before its n-th scan lies in the n-th ten seconds. And its scans."""
    (space,) = scenario.spaces
    rows, scans = [], 0
    for step in scenario.steps:
        verb = msgspec.to_builtins(step)["do"]
        if verb == "scan":
            scans += 1
            continue
        base = scans * PASS + len(rows)
        if verb == "clear_refs":
            rows.append((base, 0, Verb.CLEAR_REFS, 0))
        elif verb == "madvise":
            assert step.advice == "hugepage"
            pages = parse(step.pages, space.blocks)
            rows.append((base, int(pages[0]) << 12, Verb.MADV_HUGEPAGE, len(pages)))
        else:
            rows.extend(
                (base, page << 12, KINDS[verb], 1) for page in parse(step.pages, space.blocks).tolist()
            )
    time, address, kind, count = (np.array(column) for column in zip(*rows, strict=True))
    # A last verb that does nothing (there is no pin), so that the clock reaches the last scan.
    events = Events(
        address=np.r_[address, 0].astype(np.uint64), kind=np.r_[kind, Verb.UNPIN].astype(np.uint8),
        time=np.r_[time, scans * PASS - 1].astype(np.uint64), count=np.r_[count, 1].astype(np.uint32),
        spaces=[Space(id=0, name=space.name, type="vm")],
    )  # fmt: skip
    return events, scans


@pytest.mark.parametrize(("scenario", "key", "rules"), list(cases()))
def test_a_replayed_scenario_is_answered_as_the_kernel_answered_it(scenario, key, rules):
    trace, scans = as_trace(scenario)
    knobs = msgspec.structs.replace(scenario.host.knobs, pages_to_scan=1 << 20)
    host = msgspec.structs.replace(scenario.host, thp_enabled="madvise", knobs=knobs)
    results = compare(trace, ["khugepaged"], [rules], config=host, fill=False, channels=False)
    events, verdicts = results.rows[0].events, results.verdicts
    collapses = set()
    columns = (events.block, events.first, events.last, events.count, events.verdict)
    for block, first, last, count, verdict in zip(*(c.array().tolist() for c in columns), strict=True):
        # Equal answers in a row are told once.
        for number in np.linspace(first / 10, last / 10, count).round().astype(int).tolist():
            collapses.add((number, block, verdicts[verdict].code))
    said = set()
    for line in scenario.expect[key]:
        number, block, code, rest = re.fullmatch(r"pass (\d+) \w+:(\d+) (\w+)(.*)", line).groups()
        looked_twice = "isolate" in rest and code != "succeeded"
        said.add((int(number), int(block), code + "@isolate" * looked_twice))
    assert len(said) == len(scenario.expect[key])
    assert scans == max(number for number, *_ in said)
    assert collapses == said
