"""What a recording of a host comes to, as its page takes it: figures alone, made by whoever read the recording.

A *window* is the time between two marked moments, or the recording's ends; of a figure in a window its median over the passes.
"""

from __future__ import annotations

import msgspec


class Sampled(msgspec.Struct, frozen=True):
    """A figure with its bounds, all the same where nothing was sampled."""

    value: float
    low: float
    high: float


class Refusal(msgspec.Struct, frozen=True):
    """Why memory stayed small: khugepaged's *status* or the mapping's, its meaning in *words*, bytes in the *first* pass and the *last*."""

    status: str
    words: str
    first: float
    last: float


class RecordedRow(msgspec.Struct, frozen=True):
    """A row over time. *seconds* since the recording's beginning, of the passes that it was in, and bytes in each: *resident*, *huge*.

    *now*, *gain*, *added* and *wasted* as in the last of them, None where no block was looked at; *refused*: the largest last;
    *note*: "came" where it was not in the first pass, "gone" where it was not in the last."""

    label: str
    seconds: list[float]
    resident: list[float]
    huge: list[float]
    now: Sampled | None = None
    gain: Sampled | None = None
    added: Sampled | None = None
    wasted: Sampled | None = None
    refused: list[Refusal] = []
    note: str = ""

    @property
    def grown(self) -> float:
        """Bytes resident in its last pass more than in its first."""
        return self.resident[-1] - self.resident[0]

    @property
    def grown_huge(self) -> float:
        """The same of huge memory."""
        return self.huge[-1] - self.huge[0]


class Moved(msgspec.Struct, frozen=True):
    """A row before and after a mark. Bytes: medians over the windows, *by_itself* is how far huge memory went up and down in the window
    before; *now* where both windows had a look at blocks; *note*: "came" or "gone" where it was in one window alone."""

    label: str
    resident: tuple[float, float]
    huge: tuple[float, float]
    by_itself: float
    now: tuple[Sampled, Sampled] | None = None
    note: str = ""


class Paced(msgspec.Struct, frozen=True):
    """A counter of the host before and after a mark, events a second."""

    name: str
    before: float
    after: float


class MarkedMoment(msgspec.Struct, frozen=True):
    """A marked moment: *number* from 1, *seconds* since the beginning, *clock* as people write it, *text*. *passes* before and after,
    in its windows; *rows* by how much huge memory moved; *counters* that moved in either window."""

    number: int
    seconds: float
    clock: str
    text: str
    passes: tuple[int, int]
    rows: list[Moved] = []
    counters: list[Paced] = []


class Timeline(msgspec.Struct, frozen=True):
    """A counter or amount of the host: a *value* at each of *seconds*."""

    name: str
    seconds: list[float]
    values: list[float]


class HostHistory(msgspec.Struct, frozen=True):
    """A recording. *by*: what a row is; *span* seconds; *begun*: the clock then; *rows*: the ones shown, by growth, *others* are more, and
    *empty* had no memory in any pass.

    *amounts*: bytes; *rates*: events a second, each over the pass before; *switches*: as they were at the end; *about*: where it comes
    from, by title."""

    title: str
    by: str
    begun: str
    span: float
    passes: int
    rows: list[RecordedRow]
    total: RecordedRow | None
    others: int = 0
    empty: int = 0
    changes: list[MarkedMoment] = []
    marks_left_out: int = 0
    amounts: list[Timeline] = []
    rates: list[Timeline] = []
    switches: dict[str, str] = {}
    about: dict[str, str] = {}
