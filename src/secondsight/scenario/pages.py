"""The one way pages are written down: ``2`` is block 2 whole, ``2:0-7,9`` pages of it, ``0-3`` four blocks.

Parts are separated by blanks. A page's number in a space is ``block * 512 + index``; order and repetition are
kept, since the order of accesses matters.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR

BLOCK = HPAGE_PMD_NR
_PART = re.compile(r"(\d+)(?:-(\d+))?(?::([\d,-]+))?")


def _range(text: str, limit: int, what: str) -> range:
    low, _, high = text.partition("-")
    if not low.isdigit() or (high and not high.isdigit()) or text.endswith("-"):
        raise UsageError(f"{text!r} is no {what}: write 5 or 0-7")
    first, last = int(low), int(high or low)
    if first > last:
        raise UsageError(f"{text!r} runs backwards: write {last}-{first}")
    if last >= limit:
        raise UsageError(f"{what} {last} is out of range: 0 to {limit - 1}")
    return range(first, last + 1)


def parse(text: str, blocks: int) -> npt.NDArray[np.int64]:
    """Page numbers (int64[n], in the order written) of *text* in a space of *blocks* blocks.

    :raises UsageError: the text is malformed or names a page outside the space.
    """
    out: list[npt.NDArray[np.int64]] = []
    for part in text.split():
        match = _PART.fullmatch(part)
        if not match:
            raise UsageError(f"{part!r} names no pages: write 2, 0-3 or 2:0-7,9")
        block_text, _, inner = part.partition(":")
        which = _range(block_text, blocks, "block")
        if inner:
            index = np.concatenate(
                [np.arange(r.start, r.stop) for r in (_range(p, BLOCK, "page") for p in inner.split(","))]
            )
        else:
            index = np.arange(BLOCK)
        out.extend(block * BLOCK + index for block in which)
    if not out:
        raise UsageError("no pages named: write 2, 0-3 or 2:0-7,9")
    return np.concatenate(out).astype(np.int64)


def _runs(numbers: npt.NDArray[np.int64]) -> str:
    parts, start = [], 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            first, last = numbers[start], numbers[i - 1]
            parts.append(str(first) if first == last else f"{first}-{last}")
            start = i
    return ",".join(parts)


def format(pages: npt.NDArray[np.int64]) -> str:
    """The shortest text that :func:`parse` turns into *pages* again."""
    out: list[str] = []
    pages = np.asarray(pages, dtype=np.int64)
    cut = np.flatnonzero(np.diff(pages // BLOCK)) + 1
    for piece in np.split(pages, cut):
        if not len(piece):
            continue
        block, index = int(piece[0] // BLOCK), piece % BLOCK
        whole = len(index) == BLOCK and np.array_equal(index, np.arange(BLOCK))
        out.append(str(block) if whole else f"{block}:{_runs(index)}")
    return " ".join(out)
