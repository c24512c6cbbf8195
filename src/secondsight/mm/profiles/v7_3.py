"""Linux 7.3, as Debian 13's backports have it."""

from secondsight.mm.profiles.series import Series

SERIES = Series(
    version=(7, 3),
    about="Debian 13's newest backport",
    changes={"clear_refs_ages_huge_zero": False},
)
