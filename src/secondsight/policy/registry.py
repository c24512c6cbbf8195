"""Finding policies: through the entry-point group ``secondsight.policies``, ours and anyone's; and reading ``name,option=value``.

A package plugs its own in with, in its pyproject.toml:

    [project.entry-points."secondsight.policies"]
    mine = "my_package.policies:Mine"
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from secondsight.errors import MissingDependency, UsageError
from secondsight.policy.protocol import Policy
from secondsight.policy.ranges import check

GROUP = "secondsight.policies"

#: The longest interval in ns: what scan_sleep_millisecs can hold, an unsigned int.
_LONGEST = ((1 << 32) - 1) * 1_000_000

#: Policies added by hand in this process (a notebook, a test), before the installed ones.
ADDED: dict[str, type[Policy]] = {}


@functools.cache
def installed() -> dict[str, EntryPoint]:
    """Every entry point of the group by name; asked of the installed packages once a process."""
    return {point.name: point for point in entry_points(group=GROUP)}


@functools.cache
def rivals(name: str) -> list[str]:
    """The packages that each have a class of their own by *name*; fewer than two where it is clear what is meant."""
    by_class = {
        point.value: point.dist.name if point.dist else "?" for point in entry_points(group=GROUP, name=name)
    }
    return sorted(by_class.values())


def add(policy: type[Policy]) -> type[Policy]:
    """Make *policy* known under its ``name`` in this process; usable as a class decorator."""
    ADDED[policy.name] = policy
    return policy


def names() -> list[str]:
    """The names of every policy there is, sorted; nothing is imported."""
    return sorted({*ADDED, *installed()})


def find(name: str) -> type[Policy]:
    """The policy class called *name*.

    :raises UsageError: there is none.
    :raises MissingDependency: its package is broken, or another has one of the same name.
    """
    if name in ADDED:
        return ADDED[name]
    points = installed()
    if name not in points:
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"no policy is called {name!r}{hint}; there are {', '.join(names())}")
    if len(packages := rivals(name)) > 1:
        raise MissingDependency(
            f"policy {name!r} comes from several packages ({', '.join(packages)}), and it is not known which is meant; "
            "remove all but one, or give the entry point and its class another name"
        )
    return _load(points[name])


def _load(point: EntryPoint) -> type[Policy]:
    package = point.dist.name if point.dist else "?"
    where = f"policy {point.name!r} of the package {package} ({point.value})"
    try:
        policy_class = point.load()
    except Exception as error:  # a plug-in may fail in any way at all; the user needs its name, not our stack
        raise MissingDependency(
            f"{where} cannot be loaded: {type(error).__name__}: {error}; mend or remove that package"
        ) from error
    if not isinstance(policy_class, type) or not callable(getattr(policy_class, "wake", None)):
        raise MissingDependency(f"{where} is not a class with a `wake` method; see docs/policies.md")
    own = getattr(policy_class, "name", None)
    if not isinstance(own, str):
        raise MissingDependency(f"{where} has no `name`; see docs/policies.md")
    if own != point.name:
        # Results and the workers of a sweep know it by its own name.
        raise MissingDependency(f"{where} calls itself {own!r}: its entry point must be called the same")
    return policy_class


def options(policy: type[Policy]) -> dict[str, tuple[type, Any]]:
    """The options of *policy*: name -> (type, default); the public fields of the dataclass that it is (else none)."""
    if not dataclasses.is_dataclass(policy):
        return {}
    hints = typing.get_type_hints(policy)
    out: dict[str, tuple[type, Any]] = {}
    for f in dataclasses.fields(policy):
        if f.init and not f.name.startswith("_"):
            out[f.name] = (hints[f.name], f.default)
    return out


def make(spec: str) -> Policy:
    """A policy made anew from ``name`` or ``name,option=value,…``.

    :raises UsageError: an unknown name or option, a value out of its range.
    :raises MissingDependency: a broken plug-in.
    """
    name, *given = [part.strip() for part in spec.split(",")]
    policy = find(name)
    known = options(policy)
    values: dict[str, Any] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals or key not in known:
            takes = ", ".join(f"{k}={d}" for k, (_, d) in known.items()) or "none"
            raise UsageError(f"policy {name}: no option {item!r}; it takes {takes}")
        values[key] = _parse(text, known[key][0], f"policy {name}: {key}")
    try:
        made = policy(**values)
        check(made)
        interval = made.interval
    except UsageError:
        raise
    except Exception as error:  # as in _load: whatever a plug-in does, one clear line
        raise MissingDependency(f"policy {name} cannot be made: {type(error).__name__}: {error}") from error
    if not 0 <= interval <= _LONGEST:
        raise UsageError(
            f"policy {spec}: its interval of {interval / 1e9:g} s must be 0 (khugepaged's) to {_LONGEST / 1e9:g}"
        )
    return made


def _parse(text: str, kind: Any, what: str) -> Any:
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise UsageError(f"{what} takes true or false, not {text!r}")
    if choices := typing.get_args(kind):
        if text in choices:
            return text
        raise UsageError(f"{what} takes one of {', '.join(map(str, choices))}, not {text!r}")
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise UsageError(f"{what} takes {word}, not {text!r}") from None
        if number != number or number in (float("inf"), float("-inf")):
            raise UsageError(f"{what} takes a finite number, not {text!r}")
        return number
    return text


def describe(policy: Policy) -> str:
    """``name,option=value`` of *policy* with every option that is not its default: the label a result carries."""
    changed = [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, (_, default) in options(type(policy)).items()
        if (value := getattr(policy, key)) != default
    ]
    return ",".join([policy.name, *changed])


__all__ = ["GROUP", "add", "describe", "find", "installed", "make", "names", "options"]
