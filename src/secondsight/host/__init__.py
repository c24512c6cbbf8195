"""A whole host at a glance: a row for each process, VM, cgroup, container, user or name; the host's supply of huge pages; metrics.

::

    tasks ──▶ sums (smaps_rollup) ─────────────────────────────▶ rows ──▶ top, export, --record
       └────▶ mappings (smaps) ─▶ blocks (PAGEMAP_SCAN) ─▶ strata ─▶ sampled, judged ─▶ intervals ─┘

``host()`` is the whole of it in Python.
"""

from __future__ import annotations

from secondsight.host.intervals import Interval
from secondsight.host.rows import HostRow
from secondsight.host.survey import HostView, host

__all__ = ["HostRow", "HostView", "Interval", "host"]
