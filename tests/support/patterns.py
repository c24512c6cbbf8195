"""Patterns of use by construction: what is there at the start, and what is used in each interval. The lab guest runs it too.

A pattern is (population, intervals): text as ``scenario.pages`` has it ("2:0-7 3" …), and for each interval a list of (verb, text),
the verb one of ``read``, ``write``, ``guest``.
"""

import random

BLOCKS = 24
INTERVALS = 12


def _range(first, last):
    return (
        f"{first % BLOCKS}-{last % BLOCKS}"
        if first % BLOCKS <= last % BLOCKS
        else f"{first % BLOCKS}-{BLOCKS - 1} 0-{last % BLOCKS}"
    )


def hotcold():
    """All of it written once; then the last quarter, over and over."""
    return f"0-{BLOCKS - 1}", [[("read", f"{BLOCKS - 6}-{BLOCKS - 1}")] for _ in range(INTERVALS)]


def sparse():
    """One page of every third block."""
    return f"0-{BLOCKS - 1}", [
        [("read", " ".join(f"{b}:7" for b in range(0, BLOCKS, 3)))] for _ in range(INTERVALS)
    ]


def window():
    """Four blocks at a time, on and on through all."""
    return f"0-{BLOCKS - 1}", [[("read", _range(2 * k, 2 * k + 3))] for k in range(INTERVALS)]


def growing():
    """A new block in each interval, and two old ones used all the time."""
    return "0-3", [[("write", f"{4 + k}"), ("read", "0-1")] for k in range(INTERVALS)]


def zipf():
    """Single pages at random, those of the first blocks most."""
    draw = random.Random(5)
    weights = [1 / (rank + 1) ** 1.5 for rank in range(BLOCKS)]
    intervals = []
    for _ in range(INTERVALS):
        pages = {}
        for block in draw.choices(range(BLOCKS), weights, k=300):
            pages.setdefault(block, set()).add(draw.randrange(512))
        intervals.append(
            [("read", " ".join(f"{b}:{','.join(map(str, sorted(p)))}" for b, p in sorted(pages.items())))]
        )
    return f"0-{BLOCKS - 1}", intervals


def halves():
    """Every other block holds 40 pages; half of all blocks are used, of each kind as many; the quarter of them in every other interval."""
    even, odd = (
        " ".join(f"{b}" for b in range(0, BLOCKS, 2)),
        " ".join(f"{b}:0-39" for b in range(1, BLOCKS, 2)),
    )
    often = " ".join(f"{b}:0-39" for b in range(BLOCKS) if b % 4 < 2 and b < BLOCKS // 2)
    seldom = " ".join(f"{b}:0-39" for b in range(BLOCKS) if b % 4 < 2 and b >= BLOCKS // 2)
    return f"{even} {odd}", [[("read", f"{often} {seldom}" if k % 2 else often)] for k in range(INTERVALS)]


def guest():
    """A VM's memory: its guest uses 64 pages of a quarter of the blocks, QEMU itself one page of another."""
    pages = " ".join(f"{b}:0-63" for b in range(8, 14))
    return f"0-{BLOCKS - 1}", [[("guest", pages), ("read", "20:5")] for _ in range(INTERVALS)]


PATTERNS = {each.__name__: each for each in (hotcold, sparse, window, growing, zipf, halves, guest)}
