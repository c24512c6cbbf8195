"""What a file of this folder states: a series of kernels, by what it changed from the one before, and its variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secondsight.mm.rules import Asked


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A kernel beside its series: a point release, a vendor's, or one that was never released.

    *changes*: rules that differ from the series's; *points*: the point releases that behave so (``range(30, 60)``: 6.12.30 to 6.12.59);
    *earlier*: listed before the series, not after it.
    """

    name: str
    about: str
    changes: Mapping[str, Any]
    asked: tuple[Asked, ...] = ()
    points: range = range(0)
    earlier: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of kernels.

    *version*: (6, 12); *changes*: rules that differ from the series before it, by name; *asked*: the booted kernels of the series that
    agreed in all that they were asked, none where nobody asked one.
    """

    version: tuple[int, ...]
    about: str
    changes: Mapping[str, Any]
    asked: tuple[Asked, ...] = ()
    variants: tuple[Variant, ...] = ()

    @property
    def name(self) -> str:
        """As people call it: ``6.12``."""
        return ".".join(map(str, self.version))
