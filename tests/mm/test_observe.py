"""The model as a view: what khugepaged is told of a folio."""

import numpy as np
import pytest

from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.host import Host
from secondsight.mm.observe import of_model


@pytest.mark.parametrize(("rules", "shared"), [("6.12", False), ("7.3", True)])
def test_what_counts_as_shared_of_a_folio_that_lost_pages(rules, shared):
    """Of a 16 KiB folio whose first and last page were copied away, two processes map the other two.

    7.3.4 counts them as shared, for its folios know who maps them (6.15); 6.12 asks the first page, which nobody maps.
    """
    host = Host(rules, HostConfig(thp_enabled="never", sizes=Sizes(kb16="always")))
    mm = host.mm("m", 1)
    mm.cpu_access(np.arange(512), write=True)
    exited = fork(mm, "first")
    mm.cpu_access(np.array([0, 3]), write=True)
    exit_mm(exited)
    alone = of_model(mm, [0]).shared[0]
    fork(mm, "second")
    both = of_model(mm, [0]).shared[0]
    assert not alone.any()
    assert both[[1, 2]].tolist() == [shared] * 2
    assert both[4:].all() and both[[0, 3]].all()
