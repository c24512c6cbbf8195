"""Kernels as values of ``Rules``: a series a file (``v6_12.py``), each stated as what it changed from the one before it.

Rules' defaults --> v2_6_38 --> v6_1 --> v6_12 --> ...     sorted by version: a new file is a new profile, and nothing else changes
                       |                    |
                    variants             variants          a point release or a vendor's, from its own series
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from secondsight.errors import UsageError
from secondsight.mm.profiles.series import Series, Variant
from secondsight.mm.rules import Rules, rule_names, value

__all__ = [
    "ABOUT",
    "PROFILES",
    "SERIES",
    "Series",
    "Variant",
    "evidence_for",
    "for_kernel",
    "has_profile",
    "is_asked",
    "newest",
    "profile",
    "title",
]

#: Every series, oldest first.
SERIES: tuple[Series, ...] = tuple(
    sorted(
        (
            import_module(f"{__name__}.{file.stem}").SERIES
            for file in Path(__path__[0]).iterdir()
            if re.fullmatch(r"v\d+(_\d+)+\.py", file.name)
        ),
        key=lambda series: series.version,
    )
)


def _profiles() -> dict[str, Rules]:
    """Each series as changed from the one before, between its earlier and its later variants."""
    rules = Rules(name="")
    out: dict[str, Rules] = {}
    for series in SERIES:
        rules = rules.derive(name=series.name, asked=series.asked, **series.changes)
        beside = {v.name: rules.derive(name=v.name, asked=v.asked, **v.changes) for v in series.variants}
        earlier = [v.name for v in series.variants if v.earlier]
        out |= {name: beside[name] for name in earlier} | {series.name: rules} | beside
    return out


#: Every profile by name, oldest first.
PROFILES: dict[str, Rules] = _profiles()

#: What each profile is, in a few words.
ABOUT: dict[str, str] = {s.name: s.about for s in SERIES} | {
    v.name: v.about for s in SERIES for v in s.variants
}


def newest() -> Rules:
    """The profile of the newest series."""
    return PROFILES[SERIES[-1].name]


def profile(name: str) -> Rules:
    """The rules called *name*: a profile, or ``profile+field=value,field=value``.

    :raises UsageError: an unknown profile, field or value.
    """
    base, _, changes = name.partition("+")
    if base not in PROFILES:
        raise UsageError(f"no kernel profile is called {base!r}; there are {', '.join(PROFILES)}")
    parsed: dict[str, Any] = {}
    for item in filter(None, changes.split(",")):
        key, eq, text = item.partition("=")
        if not eq or key not in rule_names():
            raise UsageError(f"{item!r} changes no rule of {base}; write {base}+zap_transfers_accessed=true")
        parsed[key] = value(key, text)
    return PROFILES[base].derive(**parsed)


def title(name: str) -> str:
    """*name* as people are shown it: marked where no kernel stands behind the profile, or behind the one that a what-if begins with."""
    rules = PROFILES.get(name.partition("+")[0])
    return f"{name} (unasked)" if rules is not None and not rules.asked else name


def for_kernel(release: str) -> Rules:
    """The profile for a kernel that calls itself *release* (``6.12.43+deb12-amd64``).

    That of the variant which names its point release, else of its series, else of the nearest older one (of the oldest, if none is older).

    :raises UsageError: *release* starts with no version.
    """
    series, point = _series_of(release)
    for variant in series.variants if has_profile(release) else ():
        if point in variant.points:
            return PROFILES[variant.name]
    return PROFILES[series.name]


def has_profile(release: str) -> bool:
    """Whether the very series of *release* has a profile (False for what starts with no version)."""
    try:
        series, _ = _series_of(release)
    except UsageError:
        return False
    return _version(release)[: len(series.version)] == series.version


def is_asked(release: str) -> bool:
    """Whether a booted kernel of the very series of *release* stands behind its profile."""
    return has_profile(release) and bool(for_kernel(release).asked)


def evidence_for(release: str) -> str:
    """What stands behind the profile of a kernel that calls itself *release*, in words: which booted kernels answered so.

    :raises UsageError: *release* starts with no version.
    """
    rules = for_kernel(release)
    if not has_profile(release):
        return f"those of {rules.name}, the nearest older series: no kernel of this one was asked"
    points = sorted({_version(each.version) for each in rules.asked})
    if not points:
        return f"those of {rules.name}, read from its source: no booted kernel was asked"
    first, last = (".".join(map(str, point)) for point in (points[0], points[-1]))
    span = last if first == last else f"{first} to {last}"
    own = _version(release)
    if points[0] <= own <= points[-1]:
        return f"those of {rules.name}, as {span} answered"
    if re.match(r"\d+\.\d+\.0-\d", release):
        # Debian's kernels of some series call themselves by their ABI: 6.1.0-57-amd64 is a 6.1.192.
        return f"those of {rules.name}, as {span} answered; which point release this is its name does not say"
    return f"those of {rules.name}, as {span} answered; what stable changed between that and {'.'.join(map(str, own))} was not asked"


def _version(release: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)+", release)
    if not match:
        raise UsageError(f"{release!r} is no kernel release; name a kernel profile instead")
    return tuple(map(int, match[0].split(".")))


def _series_of(release: str) -> tuple[Series, int]:
    """The series that speaks for *release*, and the point release within it (0 where it names none)."""
    version = _version(release)
    series = [s for s in SERIES if s.version <= version] or [SERIES[0]]
    return series[-1], (*version[len(series[-1].version) :], 0)[0]
