"""Linux 7.1."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(7, 1),
    about="lazily freed pages are refused, and a visit costs what was looked at",
    asked=(
        Asked("7.1.3-1~bpo13+1", "npt", 60, 73002),
        Asked("7.1.13-1~bpo13+1", "npt", 60, 710),
        Asked("7.1.13-1~bpo13+1", "shadow", 60, 711),
        Asked("7.1.13-1~bpo13+1", "npt", 60, 22291),
        Asked("7.1.13-1~bpo13+1", "shadow", 60, 22291),
        Asked("7.1.13-1~bpo13+1", "npt", 300, 62001),
        Asked("7.1.13-1~bpo13+1", "shadow", 300, 62002),
        Asked("7.1.13-1~bpo13+1", "npt", 300, 94032),
        Asked("7.1.13-1~bpo13+1", "shadow", 300, 94033),
    ),
    changes={
        "lazyfree_refused": True,
        "progress": "ptes",
        "file_progress": "ptes",
    },
)
