"""Looks written by hand, and a host of a few lines that carries decisions out over a tiny trace."""

from __future__ import annotations

import numpy as np

from secondsight.policy import UNLIMITED, Look, Policy

COLUMNS = (
    "space",
    "block",
    "populated",
    "zero_filled",
    "swapped",
    "shared",
    "primary",
    "referenced",
    "secondary",
    "young",
    "walks",
    "future",
)


def look(
    n: int, *, now: float = 0.0, since: float = 0.0, huge=(), budget=UNLIMITED, free=-1.0, **columns
) -> Look:
    """A Look of *n* rows in one space, zeros except for *columns*; times in seconds, *huge* the rows that are."""
    values = {name: np.zeros(n, np.int64) for name in COLUMNS}
    values["block"] = np.arange(n, dtype=np.int64)
    for name, given in columns.items():
        values[name] = np.broadcast_to(np.asarray(given, np.int64), n).copy()
    mask = np.zeros(n, np.bool_)
    mask[list(huge)] = True
    return Look(round(now * 1e9), round(since * 1e9), huge=mask, budget=budget, free=free, **values)


def promoted(policy: Policy, seen: Look) -> list[int]:
    """The rows of *seen* that *policy* makes huge, in its order."""
    return policy.wake(seen).promote.tolist()


def run(policy: Policy, windows: list[list[int]], blocks: int, budget: int) -> int:
    """Accesses that land in huge blocks: *windows* lists, for each interval, the blocks accessed one by one.

    One page a block is accessed each time; everything a Look can say of that is said.
    """
    future = np.bincount([b for w in windows for b in w], minlength=blocks)
    touched, huge, chosen = (np.zeros(blocks, np.bool_) for _ in range(3))
    young = np.zeros(blocks, np.int64)
    covered, left = 0, budget
    for turn, window in enumerate(windows):
        seen = look(
            blocks,
            now=turn * policy.interval / 1e9,
            since=max(0, turn - 1) * policy.interval / 1e9,
            huge=np.flatnonzero(huge),
            budget=left,
            populated=np.where(huge, 512, touched),
            zero_filled=np.where(huge, 511, 0),
            young=(young > 0).astype(int),
            walks=young,
            future=future,
        )
        decision = policy.wake(seen)
        huge[decision.split] = False
        for row in decision.promote.tolist():
            if left and not huge[row] and not chosen[row]:
                left -= 1
                (huge if touched[row] else chosen)[row] = True
        young[:] = 0
        for block in window:
            if not touched[block] and (chosen[block] or (policy.faults == "huge" and left)):
                left -= 0 if chosen[block] else 1
                huge[block] = True
            touched[block] = True
            young[block] += 1
            covered += int(huge[block])
            future[block] -= 1
    return covered
