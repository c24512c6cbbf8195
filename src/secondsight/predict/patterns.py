"""The suite's access patterns: which line of the region each read goes to, and what depends on what (``loops.read``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secondsight.predict.loops import LINES

Lines = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Pattern:
    """*shape*: random, skewed (nine tenths of the reads to a sixteenth of the pages), clustered (eight lines of a page, then another),
    sequential (line after line), strided (the same line of page after page, one further each round). *chains*, *work*: see ``loops``.
    """

    shape: str
    chains: int
    work: int = 0

    @property
    def name(self) -> str:
        """For people."""
        how = {0: "independent", 1: "chained", 4: "four chains"}[self.chains]
        return f"{self.shape}, {how}" + (f", {self.work} multiplications" if self.work else "")


SUITE = (
    Pattern("random", 1), Pattern("random", 1, 40), Pattern("random", 4), Pattern("random", 4, 20),
    Pattern("random", 0), Pattern("random", 0, 80), Pattern("skewed", 1, 10), Pattern("skewed", 0, 10),
    Pattern("clustered", 1), Pattern("clustered", 4, 5), Pattern("sequential", 0, 5), Pattern("strided", 0),
)  # fmt: skip
#: MiB. The page tables of the smallest lie in a core's own caches, those of the largest (4 MiB) compete with data for the shared one.
FOOTPRINTS = (128, 512, 2048)
#: Reads of one measurement, and the measurements' windows, one after the other: what one window left in the caches the next does not read.
READS, WINDOWS = 1 << 17, 24
#: (share of the blocks huge, scattered), those with more huge pages behind those with fewer: blocks are collapsed, never split.
LAYOUTS = ((0.25, True), (0.5, True), (1.0, True))
#: And in one piece.
PIECE = ((0.5, False),)


def lines(shape: str, pages: int, reads: int, seed: int) -> Lines:
    """The line of each of *reads* reads over *pages* pages, by *shape*; the same for the same *seed*."""
    rng = np.random.default_rng(seed)
    if shape == "random":
        line_numbers = rng.integers(0, pages * LINES, reads)
    elif shape == "skewed":
        hot = rng.permutation(pages)[: max(1, pages // 16)]
        page = np.where(
            rng.random(reads) < 0.9, hot[rng.integers(0, len(hot), reads)], rng.integers(0, pages, reads)
        )
        line_numbers = page * LINES + rng.integers(0, LINES, reads)
    elif shape == "clustered":
        page = np.repeat(rng.integers(0, pages, -(-reads // 8)), 8)[:reads]
        line_numbers = page * LINES + rng.integers(0, LINES, reads)
    elif shape == "sequential":
        line_numbers = np.arange(reads) % (pages * LINES)
    else:
        at = np.arange(reads)
        line_numbers = at % pages * LINES + at // pages % LINES
    return line_numbers.astype(np.uint32)


def layout(blocks: int, share: float, scattered: bool, seed: int) -> npt.NDArray[np.int64]:
    """The blocks (rising) that are huge, *share* of *blocks*: drawn from all, or the first ones in one piece.

    Of one *seed*, a larger share holds the smaller.
    """
    number = round(share * blocks)
    if not scattered:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).permutation(blocks)[:number])
