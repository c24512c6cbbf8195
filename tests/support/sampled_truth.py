"""Patterns of use as full traces and by plain counting, and samples of the lab's guest as files: what one is held against the other."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from secondsight.mm.profiles import profile
from secondsight.policy import make
from secondsight.replay import Configuration, replay
from secondsight.replay.events import Events
from secondsight.scenario.pages import parse
from secondsight.trace import Kind, Space, TraceWriter, Verb
from secondsight.trace.sampled import SAMPLE_COLUMNS, decode_samples
from secondsight.trace.samples import Samples
from secondsight.whatif.sampled import compare_samples
from support.patterns import BLOCKS, PATTERNS

PAGES = 512
KINDS = {"read": Kind.CPU_READ, "write": Kind.CPU_WRITE, "guest": Kind.GUEST_READ}


def as_samples(path, answer):
    """The guest's *answer* (columns, provenance) as the file *path*; :class:`Samples`."""
    provenance = decode_samples(msgspec.json.encode(answer["provenance"]), "guest")
    columns = {name: np.array(answer["columns"][name], dtype) for name, dtype in SAMPLE_COLUMNS.items()}
    with TraceWriter(path, provenance, profile="compact") as out:
        out.put(columns.pop("time"), columns)
    return Samples.open(path)


def look_times(samples):
    """ns of each look."""
    return [look.time for look in samples.looks()]


def full_trace(name, base, times):
    """The pattern *name* as every access it makes: the population before the first look, each interval's spread evenly over it."""
    population, intervals = PATTERNS[name]()
    vm = name == "guest"
    address, kind, time = [], [], []

    def add(pages, what, at):
        address.append(base + (pages.astype(np.uint64) << np.uint64(12)))
        kind.append(np.full(len(pages), what, np.uint8))
        time.append(np.asarray(at, np.uint64))

    pages = parse(population, BLOCKS)
    add(pages, Kind.CPU_WRITE, np.full(len(pages), times[0]))
    add(np.zeros(1, np.int64), Verb.CLEAR_REFS, [times[0]])
    for number, verbs in enumerate(intervals):
        start, end = times[number], times[number + 1]
        parts = [(parse(text, BLOCKS), KINDS[verb]) for verb, text in verbs]
        total, done = sum(len(pages) for pages, _ in parts), 0
        for pages, what in parts:
            at = start + 1 + (np.arange(done, done + len(pages)) * (end - start - 2)) // total
            add(pages, what, at)
            done += len(pages)
    count = np.ones(sum(map(len, address)), np.uint32)
    return Events(
        np.concatenate(address), np.concatenate(kind), time=np.concatenate(time), count=count,
        spaces=[Space(id=0, name=name, type="vm" if vm else "process")],
    )  # fmt: skip


def uses(name):
    """Pages used in each interval, by block: int64[INTERVALS, BLOCKS], by plain counting."""
    _, intervals = PATTERNS[name]()
    counts = np.zeros((len(intervals), BLOCKS), np.int64)
    for number, verbs in enumerate(intervals):
        pages = {int(page) for _, text in verbs for page in parse(text, BLOCKS)}
        for page in pages:
            counts[number, page // PAGES] += 1
    return counts


class Beside(NamedTuple):
    """A pattern's full trace beside its samples, by block: *uses* int64[2, BLOCKS] (pages, summed over the intervals), *precision* and
    *recall* of the hot blocks; *decisions*: by policy, (full trace, samples), each a list of ``huge``, ``small`` or ``open``."""

    uses: np.ndarray
    precision: float
    recall: float
    decisions: dict[str, tuple[list[str], list[str]]]

    def equal(self, policy):
        """The share of blocks of which the decision is the same."""
        full, sampled = self.decisions[policy]
        return sum(a == b for a, b in zip(full, sampled, strict=True)) / len(full)


def beside(name, answer, path, policies, rules, scale):
    """The pattern *name* both ways; *answer*: the guest's answer of it, kept as the file *path*."""
    samples, base = as_samples(path, answer), answer["base"]
    comparison = compare_samples(samples, policies, [rules], time_scale=scale)
    by_address = {address: place for place, (_, address) in enumerate(comparison.blocks)}
    places = [by_address.get(base + (block << 21)) for block in range(BLOCKS)]
    truth = uses(name).sum(axis=0)
    sampled = np.array([0 if at is None else comparison.hot.uses[at][0] for at in places])
    ours, theirs = {(address - base) >> 21 for address in comparison.hot.blocks}, hot(truth)
    trace = full_trace(name, base, look_times(samples))
    configurations = [
        Configuration(row.label, profile(rules), policy=partial(make, row.policy), fill=False)
        for row in comparison.rows
    ]
    result = replay(trace, configurations, time_scale=scale)
    decisions = {}
    for row, data in zip(comparison.rows, result.data, strict=True):
        huge = {(number << 21) for number in data.blocks.number[data.blocks.huge].tolist()}
        full = ["huge" if base + (block << 21) in huge else "small" for block in range(BLOCKS)]
        decisions[row.policy] = full, ["small" if at is None else row.decisions[at] for at in places]
    return Beside(
        np.stack([truth, sampled]), len(ours & theirs) / max(len(ours), 1), len(ours & theirs) / max(len(theirs), 1), decisions
    )  # fmt: skip


def hot(counts):
    """The fewest blocks that hold nine tenths of *counts* (uses by block), and all used at least half as much as the least of these."""
    total, covered = sum(counts), 0
    for least in sorted(counts, reverse=True):
        covered += least
        if covered >= 0.9 * total:
            break
    return {block for block, count in enumerate(counts) if count and 2 * count >= least}
