"""Tables of a comparison: after each pass, and by the value of a knob."""

import msgspec
import numpy as np

from secondsight.report.schema import pack
from secondsight.report.table import by_pass, records, sensitivity
from support.results import results


def test_a_table_after_each_pass_and_one_for_each_knob():
    made = results(blocks=20, columns=8)
    # Row 0 finishes a pass each second wake-up; its guest faults are 10, 20, 30 ...; never's stand at 5 from its second wake-up on.
    steps = np.arange(1, 9)
    first = msgspec.structs.replace(
        made.rows[0],
        passes=pack(steps // 2, "i4"),
        hot=pack(steps, "i4"),
        wasted=pack(0 * steps, "i4"),
        guest_faults=pack(10 * steps, "i4"),
    )
    never = msgspec.structs.replace(made.rows[3], guest_faults=pack(np.r_[0, np.full(7, 5)], "i4"))
    cells_of_tables = [
        [list(column.cells) for column in table.columns]
        for table in by_pass(msgspec.structs.replace(made, rows=[first, never]))
    ]
    hot, _, wasted, faults = cells_of_tables
    # Passes 1, 2, 3, and the end (four are complete then); never's row, where no pass ever is, is left out.
    assert hot == [["khugepaged under 6.1"], ["2"], ["4"], ["6"], ["8"]]
    assert [c[0] for c in wasted[1:]] == ["0", "0", "0", "0"]
    assert [c[0] for c in faults[1:]] == ["15", "35", "55", "75"]
    slower = msgspec.structs.replace(first, label="slower", passes=pack(np.minimum(steps // 2, 1), "i4"))
    (both, *_) = by_pass(msgspec.structs.replace(made, rows=[first, slower]))
    assert [list(c.cells)[1] for c in both.columns] == ["slower", "2", "", "", "8"]
    (coverage, bloat) = sensitivity(made)
    assert coverage.columns[0].header == "coverage at max_ptes_none ="
    assert [c.header for c in bloat.columns[1:]] == [str(x) for x in range(0, 512, 64)]
    flat = records(made)
    assert len(flat) == 6 + 2 * 8
    assert flat[6]["knobs"] == '{"max_ptes_none":0.0}'
    assert by_pass(made) == []
