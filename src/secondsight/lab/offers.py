"""What Debian's archive offers, and which of it a name means.

    newest              the newest release of all suites (7.3.4 in backports, not sid's 7.2.13); release candidates apart
    6.12                the newest of a series
    6.12.43             the newest packaging of an upstream version
    6.12.43-1~bpo12+1   one version, also as 6.12=6.12.43-1~bpo12+1
    6.1.0-57-amd64      one release, as ``uname -r`` says it

A kernel is one package (``linux-image-RELEASE``) or, since 6.19, an empty one that depends on three (``linux-base-``, ``linux-binary-``,
``linux-modules-``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from secondsight.errors import UsageError

__all__ = [
    "DEFAULT",
    "NEWEST",
    "Offer",
    "Package",
    "choose",
    "is_candidate",
    "is_series",
    "series_of",
    "valid",
    "version_key",
]

NEWEST = "newest"
DEFAULT = ("6.1", "6.12", NEWEST)
"""The kernels that are fetched when none is named."""

_SERIES = re.compile(r"\d+\.\d+$")
# A series, an upstream version, Debian's version of it or a release: digits first, then what deb-version(7) and uname allow.
_NAME = re.compile(r"\d+\.\d+(?:\.\d+)?(?:[-+~][A-Za-z0-9.+~-]+)?$")


class Package(msgspec.Struct, frozen=True):
    """A Debian package as the archive lists it: *sha256* of the file, its *size* and *filename* there; *installed*: bytes unpacked.

    *listed*: whether the archive's signed lists name it. What a newer upload replaced leaves the lists of backports and stays in the pool;
    then *sha256* is empty and *size* is about that of its like.
    """

    name: str
    version: str
    sha256: str
    size: int
    filename: str
    installed: int = 0
    listed: bool = True


class Offer(msgspec.Struct, frozen=True):
    """A kernel that can be fetched: Debian's *version*, its *release* (``uname -r``), its *suites*, the *packages* it is in."""

    version: str
    release: str
    suites: tuple[str, ...]
    packages: tuple[Package, ...]

    @property
    def listed(self) -> bool:
        """Whether the archive's signed lists name all of it."""
        return all(package.listed for package in self.packages)

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)


def is_series(name: str) -> bool:
    """Whether *name* is a series (``6.12``)."""
    return bool(_SERIES.match(name))


def series_of(version: str) -> str:
    """The series of a version or release (``6.12.43-1`` → ``6.12``)."""
    version_start = re.match(r"\d+\.\d+", version)
    return version_start[0] if version_start else version


def is_candidate(version: str) -> bool:
    """Whether Debian's *version* is a release candidate (``7.3~rc7-1~exp1``)."""
    return bool(re.match(r"[\d.]+[~-]rc\d", version))


def valid(name: str) -> bool:
    """Whether *name* could mean a kernel of the archive."""
    base, pinned, version = name.partition("=")
    if pinned:
        return (base == NEWEST or is_series(base)) and bool(_NAME.match(version))
    return name == NEWEST or bool(_NAME.match(name))


def version_key(version: str) -> tuple[object, ...]:
    """A key by which Debian's versions sort as dpkg sorts them (deb-version(7)): ``~`` before the end, letters before other signs."""

    def part(text: str) -> list[tuple[list[int], int]]:
        pieces = re.findall(r"(\D*)(\d*)", text)
        return [([_weight(c) for c in word] + [0], int(number or 0)) for word, number in pieces]

    epoch, _, rest = version.rpartition(":")
    upstream, _, debian = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return (int(epoch or 0), part(upstream), part(debian))


def _weight(char: str) -> int:
    return -1 if char == "~" else ord(char) if char.isalpha() else ord(char) + 256


def choose(name: str, offers: Sequence[Offer]) -> Offer:
    """The one of *offers* that *name* means.

    :raises UsageError: none is meant; it names what there is.
    """
    base, pinned, version = name.partition("=")
    releases = [offer for offer in offers if not is_candidate(offer.version)]
    if name == NEWEST:
        matching = releases
    elif pinned:
        matching = [o for o in offers if o.version == version and base in (NEWEST, series_of(o.version))]
    elif is_series(name):
        # A series that is not released yet is met by its candidates.
        matching = [o for o in releases if series_of(o.version) == name] or [
            o for o in offers if series_of(o.version) == name
        ]
    else:
        matching = [o for o in offers if name in (o.version, o.release, o.version.split("-")[0])]
    if not matching:
        raise UsageError(f"the archive has no kernel {version if pinned else name}; {_instead(name, offers)}")
    return max(matching, key=lambda offer: version_key(offer.version))


def _instead(name: str, offers: Iterable[Offer]) -> str:
    same = sorted({o.version for o in offers if series_of(o.version) == series_of(name)}, key=version_key)
    if same:
        return f"of {series_of(name)} it has {', '.join(same)}"
    series = sorted({series_of(o.version) for o in offers}, key=version_key)
    return f"it has {', '.join(series) or 'none at all'}; `secondsight lab kernels --available` lists all"
