"""What a recording comes to: the figures that follow from others."""

import msgspec
import pytest

from secondsight.report.host_history import HostHistory, RecordedRow


@pytest.mark.parametrize(
    ("resident", "huge", "grown", "grown_huge"),
    [([5.0], [1.0], 0.0, 0.0), ([5.0, 90.0, 7.0], [1.0, 50.0, 0.0], 2.0, -1.0)],
)
def test_a_row_grew_from_its_first_pass_to_its_last(resident, huge, grown, grown_huge):
    row = RecordedRow("web", [10.0 * at for at in range(len(resident))], resident, huge)
    assert (row.grown, row.grown_huge) == (grown, grown_huge)


def test_a_history_comes_back_from_json_whole():
    row = RecordedRow("web", [0.0], [5.0], [1.0], note="came")
    history = HostHistory(title="h", by="vm", begun="noon", span=60.0, passes=1, rows=[row], total=None)
    assert msgspec.json.decode(msgspec.json.encode(history), type=HostHistory) == history
    assert (history.changes, history.rates, history.others, row.now) == ([], [], 0, None)
