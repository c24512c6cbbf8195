"""What changed between kernels, as data: one field for each difference that a scenario can observe.

``Rules`` is frozen. A field's default is what the oldest kernel (2.6.38) does; ``mm/profiles`` states what each later series changed, and
``rules.derive(zap_transfers_accessed=True)`` is a what-if. Every field says what it means, where the kernel states it, and what the claim
rests on (``definition.py``). Nothing outside ``mm/profiles`` compares version numbers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_type_hints

from secondsight.errors import UsageError
from secondsight.mm.rules.definition import Asked
from secondsight.mm.rules.khugepaged import KhugepagedRules
from secondsight.mm.rules.lru import LruRules
from secondsight.mm.rules.memory import MemoryRules
from secondsight.mm.rules.secondary import SecondaryRules
from secondsight.mm.rules.shared import SharedRules

__all__ = ["Asked", "Rules", "compiled_names", "info", "rule_names", "value"]


@dataclass(frozen=True, kw_only=True)
class Rules(SharedRules, MemoryRules, LruRules, SecondaryRules, KhugepagedRules):
    """One kernel's rules. *name*: what people call it; *asked*: the booted kernels that stand behind it (a what-if's:
    behind what it was derived from)."""

    name: str
    asked: tuple[Asked, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a value that no kernel has."""
        if self.lru_batch not in (14, 15, 31):
            raise UsageError(f"lru_batch={self.lru_batch}: kernels have 14, 15 or 31")

    @property
    def title(self) -> str:
        """The name as people are shown it: marked where no kernel was asked."""
        return self.name if self.asked else f"{self.name} (unasked)"

    def derive(self, *, name: str | None = None, asked: tuple[Asked, ...] = (), **changes: Any) -> Rules:
        """These rules with *changes*: a what-if, whose name says what was changed.

        With a *name* it is a kernel of its own, behind which stands what was *asked*.

        :raises UsageError: an unknown field, or a value that it does not take.
        """
        for key, new in changes.items():
            if key not in rule_names():
                raise UsageError(f"no rule is called {key!r}; `secondsight rules` lists them")
            current = getattr(self, key)
            if type(new) is not type(current):
                raise UsageError(f"rule {key}={new!r}: takes a {type(current).__name__}, like {current!r}")
            if isinstance(new, str) and new not in _choices(key):
                raise UsageError(f"rule {key} takes one of {', '.join(_choices(key))}, not {new!r}")
        if name is None:
            changed = ",".join(
                f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in changes.items()
            )
            name, asked = f"{self.name}+{changed}" if changed else self.name, self.asked
        return dataclasses.replace(self, name=name, asked=asked, **changes)


@cache
def _fields() -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(Rules) if f.metadata}


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Rules)


@cache
def _choices(key: str) -> tuple[str, ...]:
    """The words that a rule of several kinds takes."""
    return tuple(sorted(get_args(_hints()[key])))


def rule_names() -> list[str]:
    """The names of every rule, in the order of the classes above, khugepaged's first."""
    return list(_fields())


def compiled_names() -> list[str]:
    """The names of the rules that compiled code asks."""
    return [name for name, f in _fields().items() if f.metadata["compiled"]]


def info(name: str) -> dict[str, str]:
    """*doc*, *cite* and *evidence* of the rule called *name*.

    :raises UsageError: no rule is called so.
    """
    if name not in _fields():
        raise UsageError(f"no rule is called {name!r}; `secondsight rules` lists them")
    metadata = _fields()[name].metadata
    return {key: metadata[key] for key in ("doc", "cite", "evidence")}


def value(key: str, text: str) -> bool | int | str:
    """What *text* (``true``, ``15``, ``folio``) says as a value of the rule called *key*.

    :raises UsageError: the rule takes no such value.
    """
    default = _fields()[key].default
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UsageError(f"rule {key} takes true or false, not {text!r}")
        return text.lower() == "true"
    if isinstance(default, int):
        if not text.isdigit():
            raise UsageError(f"rule {key} takes a number, not {text!r}")
        return int(text)
    if text not in _choices(key):
        raise UsageError(f"rule {key} takes one of {', '.join(_choices(key))}, not {text!r}")
    return text
