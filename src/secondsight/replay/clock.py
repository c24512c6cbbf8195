"""khugepaged's clock beside the trace's, and who is woken by it.

    trace's ns since its first event x scale = ns of khugepaged's clock;    wake-ups at i, 2i, 3i …: what lies before one is applied first

A wake-up is simulated, whether anything happened since the one before or not. So their number is bounded, before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig
from secondsight.plural import pluralize
from secondsight.policy import Policy, check

#: Wake-ups of one daemon or policy in a replay: 115 days at khugepaged's 10 s, some minutes of ours for a small trace.
MOST_WAKES = 1_000_000
#: Wake-ups of khugepaged below which a reader is told.
_FEW_WAKES = 8
#: Where the clock ends (its times are int64 ns): 292 years.
_END = (1 << 63) - 1
_YEARS = _END // (365 * 86_400 * 1_000_000_000)


@dataclass(slots=True)
class Alarm:
    """A wake-up to come: at *time* (ns, khugepaged's clock), then every *interval*."""

    time: int
    interval: int
    policy: bool


def configured(policy: Policy | None, config: HostConfig) -> HostConfig:
    """*config* with what *policy* sets of it.

    :raises UsageError: a knob or an option out of its range, or one that khugepaged could not be woken by.
    """
    if policy is not None:
        check(policy)
    knobs = dict(policy.knobs) if policy else {}
    if knobs:
        if "use_zero_page" in knobs:
            config = msgspec.structs.replace(config, use_zero_page=bool(knobs.pop("use_zero_page")))
        config = msgspec.structs.replace(config, knobs=msgspec.structs.replace(config.knobs, **knobs))
    if config.knobs.scan_sleep_millisecs < 1:
        raise UsageError(
            "scan_sleep_millisecs=0: a replay needs a clock to wake khugepaged by; give at least 1"
        )
    return config


def alarms(policy: Policy | None, config: HostConfig) -> list[Alarm]:
    """Who wakes on a host of *config* (see :func:`configured`): khugepaged, unless *policy* does without, and *policy*, at once too."""
    sleep = config.knobs.scan_sleep_millisecs * 1_000_000
    out = [Alarm(sleep, sleep, False)] if policy is None or policy.khugepaged else []
    if policy is not None:
        out.append(Alarm(0, policy.interval or sleep, True))
    return out


def scale_of(value: Any) -> float:
    """*value* as a time scale.

    :raises UsageError: it is no positive number.
    """
    try:
        scale = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # a whole number that no float holds
        scale = value = math.inf
    if not 0 < scale < math.inf:
        raise UsageError(f"time scale {value}: must be a positive number")
    return scale


def bound(scale: float, span: tuple[int, int], hosts: Iterable[tuple[Policy | None, HostConfig]]) -> None:
    """Refuse a *scale* under which a trace of *span* (its first and last ns) would wake someone on one of *hosts* too often.

    :raises UsageError: more than :data:`MOST_WAKES` of one daemon or policy, or a clock that ends before the trace; the
        text says which scale will do.
    """
    length = span[1] - span[0]
    clock = length * _exact(scale)
    for policy, config in hosts:
        for alarm in alarms(policy, configured(policy, config)):
            most = min(MOST_WAKES * alarm.interval, _END - alarm.interval)
            if clock <= most:
                continue
            who = f"the policy {policy.name}" if policy is not None and alarm.policy else "khugepaged"
            wakes = clock // alarm.interval + 1
            number = f"{wakes:,}" if wakes < 10**12 else f"{Decimal(wakes):.3g}"
            raise UsageError(
                f"time scale {scale:.10g}: {who}, every {alarm.interval / 1e9:.10g} s of its clock, would wake {number} times over the "
                f"{length / 1e9:g} s of this trace; a replay makes at most {MOST_WAKES:,} wake-ups, within {_YEARS} years: "
                f"give a time scale of at most {_down(Fraction(most, length)):.10g}, or a longer interval"
            )


def hardly_woke(wakes: int, clock: float) -> str:
    """A note where khugepaged, in a replay of *clock* seconds of its time, woke *wakes* times, and these are few; else empty."""
    if wakes >= _FEW_WAKES:
        return ""
    times = pluralize(wakes, "time")
    behind = ", behind the last event" if wakes == 1 else ", the last of them behind the last event"
    return f"khugepaged woke only {times} in {clock:,.1f} s of its clock{behind}: a larger --time-scale gives it something to do"


def _exact(scale: float) -> Fraction:
    """*scale* as it is written: 0.1 is a tenth."""
    return Fraction(repr(float(scale)))


def _down(value: Fraction) -> float:
    """*value* (positive), rounded down to three digits."""
    step = Fraction(10) ** (math.floor(math.log10(value)) - 2)
    return float(value // step * step)


class KhugepagedClock:
    """khugepaged's clock over a trace that begins at *start* (ns)."""

    def __init__(self, scale: float, start: int) -> None:
        """*scale*: ns of it for one ns of the trace."""
        self.scale, self.start = scale, start
        self._ratio = _exact(scale)

    def trace_time(self, clock: int) -> int:
        """The first ns of the trace that is not before *clock*."""
        return self.start - -clock * self._ratio.denominator // self._ratio.numerator
