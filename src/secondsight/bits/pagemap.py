"""One word of ``/proc/PID/pagemap`` and the categories of the PAGEMAP_SCAN ioctl.

::

     63      62      61        58     57      56        55      54 ........ 0
    present swapped file or   guard  uffd-wp mapped    soft-   present: PFN
                    shared    region          exactly  dirty   swapped: type (5 bits), offset
                    anonymous (6.15+)         once

Source: ``Documentation/admin-guide/mm/pagemap.rst``, ``fs/proc/task_mmu.c``, ``include/uapi/linux/fs.h``.
The PFN is zero for a reader without CAP_SYS_ADMIN.
"""

from __future__ import annotations

from typing import Final

import numpy as np

PRESENT: Final = np.uint64(1 << 63)
SWAPPED: Final = np.uint64(1 << 62)
FILE_OR_SHARED: Final = np.uint64(1 << 61)
GUARD: Final = np.uint64(1 << 58)
UFFD_WP: Final = np.uint64(1 << 57)
EXCLUSIVE: Final = np.uint64(1 << 56)
SOFT_DIRTY: Final = np.uint64(1 << 55)
PFN_MASK: Final = np.uint64((1 << 55) - 1)

# Categories of PAGEMAP_SCAN (Linux 6.7+).
SCAN_WPALLOWED: Final = 1 << 0
SCAN_WRITTEN: Final = 1 << 1
SCAN_FILE: Final = 1 << 2
SCAN_PRESENT: Final = 1 << 3
SCAN_SWAPPED: Final = 1 << 4
SCAN_PFNZERO: Final = 1 << 5
SCAN_HUGE: Final = 1 << 6
SCAN_SOFT_DIRTY: Final = 1 << 7
