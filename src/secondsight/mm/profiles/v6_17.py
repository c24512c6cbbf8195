"""Linux 6.17."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(6, 17),
    about="mprotect takes a large folio's entries together",
    asked=(
        Asked("6.17.8-1~bpo13+1", "npt", 60, 73002),
        Asked("6.17.13-1~bpo13+1", "npt", 60, 170),
        Asked("6.17.13-1~bpo13+1", "shadow", 60, 171),
        Asked("6.17.13-1~bpo13+1", "npt", 60, 22291),
        Asked("6.17.13-1~bpo13+1", "shadow", 60, 22291),
        Asked("6.17.13-1~bpo13+1", "npt", 300, 60105),
        Asked("6.17.13-1~bpo13+1", "shadow", 300, 62004),
        Asked("6.17.13-1~bpo13+1", "npt", 300, 93006),
        Asked("6.17.13-1~bpo13+1", "npt", 300, 94024),
        Asked("6.17.13-1~bpo13+1", "shadow", 300, 94025),
    ),
    changes={
        "mprotect_batches": True,
        "mremap_moves_many": True,
        "shmem_any_size": False,
    },
)
