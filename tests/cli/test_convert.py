"""``secondsight convert``: what it says of a conversion."""

import pytest

from secondsight.cli import main


def test_in_a_pipe_no_line_is_folded(tmp_path, capsys):
    source, out = (
        tmp_path / "accesses.csv",
        tmp_path / ("a-name-so-long-that-eighty-columns-do-not-hold-it" * 3),
    )
    source.write_text("time,address,rw\n3,0x1000,R\n4,0xffff800000001000,W\n1,0x2000,W\n")
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(source), "-o", str(out)])
    assert not stop.value.code
    told, made, left, held = capsys.readouterr().err.splitlines()
    assert told == "columns: time=time,address=address:hex,kind=rw:R/W/F"
    assert made.startswith(f"{out}: 2 accesses from csv in ") and made.endswith(" bytes")
    assert left == "left out: 1 addresses outside the space"
    assert held == "clock ran backwards: 1 row held at the latest time"
