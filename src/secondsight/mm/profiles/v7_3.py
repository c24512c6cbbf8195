"""Linux 7.3, as Debian 13's backports have it."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(7, 3),
    about="Debian 13's newest backport",
    asked=(
        Asked("7.3.4-1~bpo13+1", "npt", 240, 7303),
        Asked("7.3.4-1~bpo13+1", "shadow", 64, 7304),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 61001),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 61002),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 61003),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 61004),
        Asked("7.3.4-1~bpo13+1", "shadow", 300, 50008),
        Asked("7.3.4-1~bpo13+1", "ept", 100, 50011),
        Asked("7.3.4-1~bpo13+1", "ept", 60, 62201),
        Asked("7.3.4-1~bpo13+1", "ept", 100, 62211),
        Asked("7.3.4-1~bpo13+1", "ept-noad", 60, 62202),
        Asked("7.3.4-1~bpo13+1", "ept-noad", 100, 62212),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90001),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90002),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90003),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90004),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90015),
        Asked("7.3.4-1~bpo13+1", "shadow", 300, 90008),
        Asked("7.3.4-1~bpo13+1", "ept", 200, 90011),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90021),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90022),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90023),
        Asked("7.3.4-1~bpo13+1", "npt", 500, 90024),
        Asked("7.3.4-1~bpo13+1", "shadow", 300, 90030),
    ),
    changes={
        "clear_refs_ages_huge_zero": False,
        "lazyfree_keeps_pmd": False,
        "swapin_drains": False,
        "file_scan_names_entry": False,
    },
)
