"""Linux 6.18."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(6, 18),
    about="writable pages are no condition any more",
    asked=(
        Asked("6.18.5-1~bpo13+1", "npt", 60, 73002),
        Asked("6.18.15-1~bpo13+1", "npt", 60, 77),
        Asked("6.18.15-1~bpo13+1", "shadow", 60, 181),
        Asked("6.18.15-1~bpo13+1", "npt", 60, 22291),
        Asked("6.18.15-1~bpo13+1", "shadow", 60, 22291),
        Asked("6.18.15-1~bpo13+1", "npt", 300, 60107),
        Asked("6.18.15-1~bpo13+1", "shadow", 300, 62005),
        Asked("6.18.15-1~bpo13+1", "npt", 300, 94026),
        Asked("6.18.15-1~bpo13+1", "shadow", 300, 94027),
    ),
    changes={
        "writable": "none",
        "trace_writable": False,
        "split_pmd_munlocks": False,
        "around_maps_folio": True,
        "set_pmd_makes_table": True,
    },
)
