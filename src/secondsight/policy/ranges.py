"""What an option of a policy may be: a range beside its type, held whether it comes from a command line, a sweep or Python.

alpha: Share = 0.4                                 # 0 to 1
rounds: Annotated[int, Within(1, 100)] = 3         # a range of one's own
"""

from __future__ import annotations

import difflib
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from secondsight.errors import UsageError
from secondsight.geometry import KHUGEPAGED_MAX_PTES_LIMIT
from secondsight.policy.protocol import Need

_UINT_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Within:
    """*low* to *high*, both included; or *unset*, which stands for *meaning*."""

    low: float
    high: float
    unset: float | None = None
    meaning: str = ""

    def __contains__(self, value: Any) -> bool:
        return self.low <= value <= self.high or (self.unset is not None and value == self.unset)

    def __str__(self) -> str:
        """``0 to 1``; ``0 to 511, or -1: the host's``."""
        text = f"{_number(self.low)} to {_number(self.high)}"
        return text if self.unset is None else f"{text}, or {_number(self.unset)}: {self.meaning}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.10g}"


#: A share, a weight, a fraction.
Share = Annotated[float, Within(0, 1)]
#: Seconds between two wake-ups: what scan_sleep_millisecs can hold, an unsigned int, but not nothing.
Seconds = Annotated[float, Within(0.001, _UINT_MAX / 1000)]
#: Blocks: as many as an address space of 2**56 bytes has.
Blocks = Annotated[int, Within(1, 1 << 35)]
AtMost = Annotated[int, Within(1, 1 << 35, 0, "no limit")]
#: khugepaged's sysfs files, as mm/khugepaged.c's ``*_store`` functions take them.
MaxPtes = Annotated[int, Within(0, KHUGEPAGED_MAX_PTES_LIMIT)]
HostMaxPtes = Annotated[int, Within(0, KHUGEPAGED_MAX_PTES_LIMIT, -1, "the host's")]
HostCount = Annotated[int, Within(1, _UINT_MAX, -1, "the host's")]


def ranges(policy: type) -> dict[str, Within]:
    """The options of *policy* that have a range."""
    within_by_option: dict[str, Within] = {}
    for name, hint in typing.get_type_hints(policy, include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Within):
                within_by_option[name] = extra
    return within_by_option


def check(policy: Any) -> None:
    """Hold the options of *policy* (made) to their ranges, and its ``needs`` to the signals there are.

    :raises UsageError: one lies outside; the text names the policy, the option, its value and the range, or the need and what it may be.
    """
    known = typing.get_args(Need)
    for need in sorted(set(map(str, policy.needs)) - set(known)):
        near = difflib.get_close_matches(need, known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(
            f"policy {policy.name}: no signal is called {need!r}{hint}; there are {', '.join(known)}"
        )
    for name, within in ranges(type(policy)).items():
        value = getattr(policy, name)
        if value not in within:
            raise UsageError(f"policy {policy.name}: {name}={value}: must be {within}")


__all__ = [
    "AtMost",
    "Blocks",
    "HostCount",
    "HostMaxPtes",
    "MaxPtes",
    "Seconds",
    "Share",
    "Within",
    "check",
    "ranges",
]
