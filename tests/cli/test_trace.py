"""``secondsight trace``."""

import pytest

from secondsight.cli import main
from secondsight.trace import Provenance, Space, TraceWriter
from secondsight.trace.provenance import Walks
from support.events import CR, CW, trace


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "not counted; every access is here in order"),
        ({"quantum": 10}, "not counted: rows are aggregated"),
        ({"source": "record-pid", "quantum": 10}, "not counted: the trace holds samples"),
        (
            {"walks": [Walks(space=0, accesses=900, counted=300, block=[4], small=[5], huge=[1])]},
            "counted by the recorder's TLB in 300 of 900 accesses to data",
        ),
    ],
)
def test_what_is_known_of_page_walks_is_no_loss(changes, said, capsys, tmp_path):
    columns = trace([(0, 0, 4, 0, CR), (1, 0, 4, 0, CW)]).columns
    given = {"source": "synthetic", "spaces": [Space(id=0, name="s")], "unseen": ["page walks", "DMA"]}
    with TraceWriter(tmp_path / "t", Provenance(**given | changes)) as out:
        out.append(*(columns[name] for name in ("time", "space", "address", "kind")))
    with pytest.raises(SystemExit):
        main(["trace", "info", str(tmp_path / "t")])
    printed = capsys.readouterr().out
    assert f"walks    {said}" in printed and "unseen   DMA\n" in printed
