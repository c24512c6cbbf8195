"""Linux 7.0."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(7, 0),
    about="every page comes back from swap through the swap cache",
    asked=(
        Asked("7.0.4-1~bpo13+1", "npt", 60, 73002),
        Asked("7.0.13-1~bpo13+1", "npt", 60, 700),
        Asked("7.0.13-1~bpo13+1", "shadow", 60, 701),
        Asked("7.0.13-1~bpo13+1", "npt", 60, 22291),
        Asked("7.0.13-1~bpo13+1", "shadow", 60, 22291),
        Asked("7.0.13-1~bpo13+1", "npt", 300, 60111),
        Asked("7.0.13-1~bpo13+1", "shadow", 300, 62007),
        Asked("7.0.13-1~bpo13+1", "npt", 300, 94030),
        Asked("7.0.13-1~bpo13+1", "shadow", 300, 94031),
    ),
    changes={
        "swapin_bypasses_cache": False,
    },
)
