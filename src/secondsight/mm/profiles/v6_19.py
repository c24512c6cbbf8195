"""Linux 6.19."""

from secondsight.mm.profiles.series import Series
from secondsight.mm.rules import Asked

SERIES = Series(
    version=(6, 19),
    about="a block without a page table has a result of its own",
    asked=(
        Asked("6.19.6-2~bpo13+1", "npt", 60, 73002),
        Asked("6.19.14-1~bpo13+1", "npt", 60, 190),
        Asked("6.19.14-1~bpo13+1", "shadow", 60, 191),
        Asked("6.19.14-1~bpo13+1", "npt", 60, 22291),
        Asked("6.19.14-1~bpo13+1", "shadow", 60, 22291),
        Asked("6.19.14-1~bpo13+1", "npt", 300, 60109),
        Asked("6.19.14-1~bpo13+1", "shadow", 300, 62006),
        Asked("6.19.14-1~bpo13+1", "npt", 300, 94028),
        Asked("6.19.14-1~bpo13+1", "shadow", 300, 94029),
    ),
    changes={
        "numa_asks_huge": True,
        "no_table_code": "no_pte_table",
        "unmap_batch_ends_at_write": True,
    },
)
