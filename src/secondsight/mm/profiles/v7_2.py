"""Linux 7.2, as Debian sid has it."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(7, 2),
    about="Debian sid's kernel",
    asked=(
        Asked("7.2.6-1~bpo13+1", "npt", 60, 73002),
        Asked("7.2.13-1", "npt", 2000, 8004),
        Asked("7.2.13-1", "ept", 300, 8012),
        Asked("7.2.13-1", "npt", 60, 22291),
        Asked("7.2.13-1", "shadow", 60, 22291),
        Asked("7.2.13-1", "npt", 300, 62104),
        Asked("7.2.13-1", "shadow", 300, 60116),
        Asked("7.2.13-1", "ept-noad", 40, 62301),
        Asked("7.2.13-1", "npt", 500, 90007),
        Asked("7.2.13-1", "npt", 500, 90029),
        Asked("7.2.13-1", "npt", 1000, 91006),
        Asked("7.2.13-1", "npt", 500, 92006),
        Asked("7.2.13-1", "npt", 300, 94013),
        Asked("7.2.13-1", "shadow", 300, 94014),
    ),
    changes={
        "spte_era": "mbec",
        "collapse_of_no_block": True,
        "mthp_collapse": True,
        "mglru_fault_marks": True,
        "pmd_modify_drops_dirty": False,
        "advice_enters_late": True,
        "file_collapse": True,
    },
)
